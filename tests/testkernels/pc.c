/* A PC: COM1 is the console, isa-debug-exit ends it. */
#include "machine.h"
#include "ports.h"

enum { COM1 = 0x3f8, DEBUG_EXIT = 0xf4 };

void machine_put(char c)
{
	/* A missing port reads 0xff, which says "ready". */
	while (!(in8(COM1 + 5) & 0x20))
		;
	out8(COM1, (u8)c);
}

void machine_open(void)
{
	out8(COM1 + 1, 0);    /* no interrupts */
	out8(COM1 + 3, 0x80); /* 115200 8n1 */
	out8(COM1 + 0, 1);
	out8(COM1 + 1, 0);
	out8(COM1 + 3, 3);
	out8(COM1 + 2, 7); /* FIFOs on and empty */
}

char machine_get(void)
{
	while (!(in8(COM1 + 5) & 1))
		;
	return (char)in8(COM1);
}

void machine_exit(u32 status)
{
	out32(DEBUG_EXIT, status);
}
