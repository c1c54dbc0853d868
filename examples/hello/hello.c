/*
 * A unikernel in one page: says hello on the first serial port and on the VGA screen, shows its command line and
 * its modules, and ends.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

struct multiboot {
	u32 flags, mem_lower, mem_upper, boot_device;
	const char *cmdline;
	u32 module_count;
	const struct module {
		const char *start, *end, *text;
		u32 reserved;
	} *modules;
};

static void outb(u16 port, u8 value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static u8 inb(u16 port)
{
	u8 value;
	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static void serial(char c)
{
	while (!(inb(0x3fd) & 0x20))
		;
	outb(0x3f8, (u8)c);
}

static volatile u16 *const cells = (u16 *)0xb8000;
static u32 at;

static void clear_screen(void)
{
	for (u32 i = 0; i < 80 * 25; i++)
		cells[i] = 0x700 | ' ';
}

static void screen(char c)
{
	if (c == '\n')
		at = (at / 80 + 1) * 80;
	else if (c != '\r')
		cells[at++] = 0x700 | (u8)c;
	if (at == 80 * 25)
		at = 0;
}

static void print(const char *text)
{
	for (; *text; text++) {
		if (*text == '\n')
			serial('\r');
		serial(*text);
		screen(*text);
	}
}

static void print_number(u32 value)
{
	char digits[11], *p = digits + 10;

	*p = 0;
	do
		*--p = (char)('0' + value % 10);
	while (value /= 10);
	print(p);
}

void hello(const struct multiboot *given)
{
	clear_screen();
	print("Hello from a unikernel.\n");
	if (given->flags & 1) {
		print("memory: ");
		print_number((given->mem_upper + 1024 + 1023) / 1024);
		print(" MiB\n");
	}
	if (given->flags & 4) {
		print("command line: ");
		print(given->cmdline);
		print("\n");
	}
	for (u32 i = 0; given->flags & 8 && i < given->module_count; i++) {
		print("module: ");
		print(given->modules[i].text);
		print(", ");
		print_number((u32)(given->modules[i].end - given->modules[i].start));
		print(" bytes\n");
	}
	print("Goodbye.\n");

	/* Under QEMU with -device isa-debug-exit,iobase=0xf4 this ends the machine: exit status 2 * 16 + 1. */
	outb(0xf4, 16);
	for (;;)
		__asm__ volatile("cli; hlt");
}
