// What C++ has of llama.h: here that is all of it.
#pragma once

#include "llama.h"
