/* A PC: COM1 is the console, isa-debug-exit ends it. */
#include "machine.h"

enum { COM1 = 0x3f8, DEBUG_EXIT = 0xf4 };

static void outb(u16 port, u8 value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static void outl(u16 port, u32 value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static u8 inb(u16 port)
{
	u8 value;
	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

void machine_put(char c)
{
	/* A missing port reads 0xff, which says "ready". */
	while (!(inb(COM1 + 5) & 0x20))
		;
	outb(COM1, (u8)c);
}

void machine_open(void)
{
	outb(COM1 + 1, 0);    /* no interrupts */
	outb(COM1 + 3, 0x80); /* 115200 8n1 */
	outb(COM1 + 0, 1);
	outb(COM1 + 1, 0);
	outb(COM1 + 3, 3);
	outb(COM1 + 2, 7); /* FIFOs on and empty */
}

char machine_get(void)
{
	while (!(inb(COM1 + 5) & 1))
		;
	return (char)inb(COM1);
}

void machine_exit(u32 status)
{
	outl(DEBUG_EXIT, status);
}
