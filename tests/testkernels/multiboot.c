/* The Multiboot test kernel, both versions: which one is told by the magic the loader leaves. */
#include "report.h"

struct info1 {
	u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr;
};

struct module1 {
	u32 start, end, string, reserved;
};

struct tag2 {
	u32 type, size;
};

struct module2 {
	struct tag2 tag;
	u32 start, end;
	char string[];
};

struct memory2 {
	struct tag2 tag;
	u32 lower, upper;
};

static void __attribute__((noreturn)) multiboot1(const struct info1 *info)
{
	const char *cmdline = info->flags & 4 ? (const char *)info->cmdline : "";
	const struct module1 *modules = (const struct module1 *)info->mods_addr;

	report_bytes("cmdline", cmdline, length_of(cmdline));
	report_number("upper-memory-kib", info->flags & 1 ? info->mem_upper : 0);
	for (u32 i = 0; info->flags & 8 && i < info->mods_count; i++) {
		const char *text = (const char *)modules[i].string;
		report_module(text, length_of(text), (const void *)modules[i].start, modules[i].end - modules[i].start);
	}
	report_end(cmdline, length_of(cmdline));
}

static void __attribute__((noreturn)) multiboot2(const u8 *info)
{
	const u8 *end = info + *(const u32 *)info;
	const char *cmdline = "";
	const struct tag2 *tag;

	/* The order of the tags is the loader's, so take the command line first. */
	for (const u8 *p = info + 8; p < end; p += (tag->size + 7) & ~7u) {
		tag = (const struct tag2 *)p;
		if (tag->type == 1)
			cmdline = (const char *)(tag + 1);
	}
	report_bytes("cmdline", cmdline, length_of(cmdline));
	for (const u8 *p = info + 8; p < end; p += (tag->size + 7) & ~7u) {
		tag = (const struct tag2 *)p;
		if (tag->type == 4)
			report_number("upper-memory-kib", ((const struct memory2 *)tag)->upper);
		if (tag->type == 8) /* width, of a linear framebuffer (1) */
			report_number("framebuffer", p[29] == 1 ? *(const u32 *)(p + 20) : 0);
		if (tag->type == 3) {
			const struct module2 *m = (const struct module2 *)tag;
			report_module(m->string, length_of(m->string), (const void *)m->start, m->end - m->start);
		}
	}
	report_end(cmdline, length_of(cmdline));
}

void kernel_main(u32 magic, const void *info)
{
	if (magic == 0x2badb002) {
		report_begin("multiboot");
		report_number("magic", magic);
		multiboot1(info);
	}
	if (magic == 0x36d76289) {
		report_begin("multiboot2");
		report_number("magic", magic);
		multiboot2(info);
	}
	report_begin("unknown");
	report_number("magic", magic);
	report_end("exit=1", 6);
}
