#ifndef TURBOQUANT_STUB_LIMITS_H
#define TURBOQUANT_STUB_LIMITS_H
#define CHAR_BIT __CHAR_BIT__
#define INT_MAX __INT_MAX__
#define INT_MIN (-__INT_MAX__ - 1)
#define LONG_MAX __LONG_MAX__
#define UINT_MAX (__INT_MAX__ * 2U + 1U)
#endif
