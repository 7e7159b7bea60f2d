/*
 * auxv.c as a program without an interpreter.
 * FLAGS: -static
 */
#include "auxv.c"
