/*
 * auxv.c as a program without an interpreter.
 * FLAGS: -static-pie
 */
#include "auxv.c"
