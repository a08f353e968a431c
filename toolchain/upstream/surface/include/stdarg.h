#ifndef TURBOQUANT_STUB_STDARG_H
#define TURBOQUANT_STUB_STDARG_H
typedef __builtin_va_list va_list;
#endif
