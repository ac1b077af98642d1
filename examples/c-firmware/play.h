// What this example does, apart from the machine that it runs on.
#ifndef PLAY_H
#define PLAY_H

#include <stdint.h>

// Plays to a few rooms, and prints what they send. Returns 0 if nothing has failed.
int play(void);

void print_number(uint64_t number);

// The machine's: prints a text that ends with a NUL.
void print(const char *text);

#endif
