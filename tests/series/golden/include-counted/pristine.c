void f(void) {
    case A
    case AB
    case A