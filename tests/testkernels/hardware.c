/* The Multiboot kernel that reports the machine: what a guest without a firmware interface can find and use. */
#include "ports.h"

struct info {
	u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr;
	u32 syms[4], mmap_length, mmap_addr;
};

struct region {
	u32 size, base_low, base_high, length_low, length_high, type;
} __attribute__((packed));

static u32 pci(u32 address, u32 offset)
{
	out32(0xcf8, 0x80000000u | address | offset);
	return in32(0xcfc);
}

/* The BIOS data area: where the BIOS leaves the ports of what it found. */
static u32 bios_data(u32 address)
{
	/* The compiler must not know that this is an address below the first page: it would call it a null pointer. */
	__asm__("" : "+r"(address));
	return *(const volatile u16 *)address;
}

/* The end of the memory region that begins at 1 MiB: rumprun uses no other. */
static u32 memory_end(const struct info *info)
{
	u32 at = info->mmap_addr, end = at + info->mmap_length;

	while (info->flags & 64 && at < end) {
		const struct region *r = (const struct region *)at;
		if (r->type == 1 && !r->base_high && r->base_low == 0x100000)
			return r->length_high ? ~0u : r->base_low + r->length_low;
		at += r->size + 4;
	}
	return 0;
}

/* How often the counter of the i8254's channel 0 is seen to change: never, if there is no such timer. */
static u32 timer_changes(void)
{
	u32 changes = 0, last = 0;

	out8(0x43, 0x34);
	out8(0x40, 0xff);
	out8(0x40, 0xff);
	for (u32 i = 0; i < 10000; i++) {
		out8(0x43, 0);
		u32 now = in8(0x40);
		now |= (u32)in8(0x40) << 8;
		changes += i && now != last;
		last = now;
	}
	return changes;
}

static u8 cmos(u8 at)
{
	out8(0x70, at);
	return in8(0x71);
}

static char *put_hex(char *to, u32 value, int digits)
{
	while (digits--)
		*to++ = "0123456789abcdef"[value >> (4 * digits) & 15];
	return to;
}

/* "vendor:device class subsystem bar0 virtio-blk-sectors"; the last is read through the legacy registers. */
static void report_device(u32 address)
{
	char text[64], *to = text;
	u32 id = pci(address, 0), bar = pci(address, 16);
	int io = bar & 1, block = (id & 0xffff) == 0x1af4 && pci(address, 44) >> 16 == 2;

	to = put_hex(to, id & 0xffff, 4);
	*to++ = ':';
	to = put_hex(to, id >> 16, 4);
	*to++ = ' ';
	to = put_hex(to, pci(address, 8) >> 16, 4);
	*to++ = ' ';
	to = put_hex(to, pci(address, 44) >> 16, 4);
	*to++ = ' ';
	*to++ = io ? 'i' : 'm';
	*to++ = ' ';
	to = put_hex(to, io && block ? in32((u16)((bar & ~3u) + 20)) : 0, 8);
	report_bytes("pci", text, (u32)(to - text));
}

void kernel_main(u32 magic, const void *info)
{
	report_begin("hardware");
	report_number("magic", magic);
	report_number("bda-com1", bios_data(0x400));
	report_number("bda-display", bios_data(0x463));
	report_number("memory-end", memory_end(info));
	report_number("timer-changes", timer_changes());
	report_number("rtc-month", cmos(8));
	for (u32 address = 0; address < 16 << 16; address += 1 << 8) {
		u32 header = pci(address & ~0x700u, 12) >> 16;
		if ((u16)pci(address, 0) != 0xffff && (!(address & 0x700) || header & 0x80))
			report_device(address);
	}
	report_end("", 0);
}
