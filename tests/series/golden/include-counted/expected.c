void f(void) {
#include "ours.h"
    case A
    case AB
#include "ours.h"
    case A