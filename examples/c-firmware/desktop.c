// The desktop as the machine.
#include "play.h"

#include <stdio.h>

void print(const char *text) { fputs(text, stdout); }

int main(void) { return play(); }
