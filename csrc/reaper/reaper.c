int _start(void);
int _start(void) { return 0; }
