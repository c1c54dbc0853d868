/* What a test kernel runs on: a PC (pc.c) or Xen (xen.c). */
#ifndef MACHINE_H
#define MACHINE_H

#include "report.h"

void machine_open(void);
void machine_put(char c);
/* Waits for a key. */
char machine_get(void);
/* Ends the machine; returns if it cannot. */
void machine_exit(u32 status);

#endif
