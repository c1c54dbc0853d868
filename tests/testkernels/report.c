#include "report.h"

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

static void put(char c)
{
	/* A missing port reads 0xff, which says "ready". */
	while (!(inb(COM1 + 5) & 0x20))
		;
	outb(COM1, (u8)c);
}

static void print(const char *text)
{
	while (*text)
		put(*text++);
}

static void print_hex(u32 value, int digits)
{
	while (digits--)
		put("0123456789abcdef"[value >> (4 * digits) & 15]);
}

static u32 crc32(const u8 *bytes, u32 length)
{
	u32 crc = ~0u, table[256];

	for (u32 i = 0; i < 256; i++) {
		u32 c = i;
		for (int bit = 0; bit < 8; bit++)
			c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
		table[i] = c;
	}
	while (length--)
		crc = crc >> 8 ^ table[(crc ^ *bytes++) & 255];
	return ~crc;
}

static void print_escaped(const u8 *bytes, u32 length)
{
	put('"');
	for (; length--; bytes++) {
		if (*bytes >= 0x20 && *bytes < 0x7f && *bytes != '"' && *bytes != '\\')
			put((char)*bytes);
		else {
			print("\\x");
			print_hex(*bytes, 2);
		}
	}
	put('"');
}

u32 length_of(const char *text)
{
	u32 length = 0;

	while (text[length])
		length++;
	return length;
}

void report_begin(const char *protocol)
{
	outb(COM1 + 1, 0);    /* no interrupts */
	outb(COM1 + 3, 0x80); /* 115200 8n1 */
	outb(COM1 + 0, 1);
	outb(COM1 + 1, 0);
	outb(COM1 + 3, 3);
	outb(COM1 + 2, 7); /* FIFOs on and empty */
	print("\r\ntestkernel ");
	print(protocol);
	print("\r\n");
}

void report_bytes(const char *name, const void *bytes, u32 length)
{
	print(name);
	put(' ');
	print_escaped(bytes, length);
	print("\r\n");
}

void report_number(const char *name, u32 hex)
{
	print(name);
	put(' ');
	print_hex(hex, 8);
	print("\r\n");
}

void report_module(const void *text, u32 text_length, const void *content, u32 size)
{
	print("module ");
	print_hex(size, 8);
	put(' ');
	print_hex(crc32(content, size), 8);
	put(' ');
	print_escaped(text, text_length);
	print("\r\n");
}

/* Returns the end of name in one word of the command line if the word starts so, else null. */
static const char *after(const char *word, const char *end, const char *name)
{
	while (*name)
		if (word == end || *word++ != *name++)
			return 0;
	return word;
}

static u32 number(const char *digits, const char *end)
{
	u32 value = 0;

	while (digits < end && *digits >= '0' && *digits <= '9')
		value = value * 10 + (u32)(*digits++ - '0');
	return value;
}

static void halt(void)
{
	for (;;)
		__asm__ volatile("cli; hlt");
}

static void triple_fault(void)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) none = {0, 0};

	__asm__ volatile("lidt %0; int3" : : "m"(none));
}

static void echo(void)
{
	print("echoing, q quits\r\n");
	for (;;) {
		if (!(inb(COM1 + 5) & 1))
			continue;
		u8 c = inb(COM1);
		if (c == 'q')
			return;
		put((char)c);
	}
}

void report_end(const char *cmdline, u32 length)
{
	const char *end = cmdline + length, *value;
	u32 status = 0x10;

	print("end of report\r\n");
	for (const char *word = cmdline, *stop; word < end; word = stop + 1) {
		for (stop = word; stop < end && *stop != ' '; stop++)
			;
		if ((value = after(word, stop, "exit=")))
			status = number(value, stop);
		else if ((value = after(word, stop, "flood="))) {
			for (u32 count = number(value, stop); count; count--)
				put(count % 64 ? 'x' : '\n');
		} else if (after(word, stop, "echo") == stop)
			echo();
		else if (after(word, stop, "hang") == stop)
			for (;;)
				__asm__ volatile("pause");
		else if (after(word, stop, "halt") == stop)
			halt();
		else if (after(word, stop, "triple") == stop)
			triple_fault();
	}
	outl(DEBUG_EXIT, status);
	print("halted\r\n");
	halt();
	__builtin_unreachable();
}
