#include "report.h"
#include "machine.h"

static void print(const char *text)
{
	while (*text)
		machine_put(*text++);
}

static void print_hex(u32 value, int digits)
{
	while (digits--)
		machine_put("0123456789abcdef"[value >> (4 * digits) & 15]);
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
	machine_put('"');
	for (; length--; bytes++) {
		if (*bytes >= 0x20 && *bytes < 0x7f && *bytes != '"' && *bytes != '\\')
			machine_put((char)*bytes);
		else {
			print("\\x");
			print_hex(*bytes, 2);
		}
	}
	machine_put('"');
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
	machine_open();
	print("\r\ntestkernel ");
	print(protocol);
	print("\r\n");
}

void report_bytes(const char *name, const void *bytes, u32 length)
{
	print(name);
	machine_put(' ');
	print_escaped(bytes, length);
	print("\r\n");
}

void report_number(const char *name, u32 hex)
{
	print(name);
	machine_put(' ');
	print_hex(hex, 8);
	print("\r\n");
}

void report_module(const void *text, u32 text_length, const void *content, u32 size)
{
	print("module ");
	print_hex(size, 8);
	machine_put(' ');
	print_hex(crc32(content, size), 8);
	machine_put(' ');
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
		char c = machine_get();
		if (c == 'q')
			return;
		machine_put(c);
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
				machine_put(count % 64 ? 'x' : '\n');
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
	machine_exit(status);
	print("halted\r\n");
	halt();
	__builtin_unreachable();
}
