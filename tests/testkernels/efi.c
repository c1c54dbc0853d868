/* The EFI test application: reports its load options. UEFI specification 2.10, §4.3 and §9.1. */
#include "report.h"

#define EFIAPI __attribute__((ms_abi))

struct guid {
	u32 a;
	u16 b, c;
	u8 d[8];
};

struct boot_services {
	u8 header[24];
	void *before_handle_protocol[16];
	u64 (EFIAPI *handle_protocol)(void *handle, const struct guid *protocol, void **interface);
};

struct file {
	u64 revision;
	u64 (EFIAPI *open)(struct file *from, struct file **opened, const u16 *name, u64 mode, u64 attributes);
	void *close, *delete;
	u64 (EFIAPI *read)(struct file *file, u64 *size, void *buffer);
};

struct volume {
	u64 revision;
	u64 (EFIAPI *open)(struct volume *volume, struct file **root);
};

struct system_table {
	u8 header[24];
	void *vendor;
	u32 revision;
	void *console[6];
	void *runtime;
	struct boot_services *boot;
};

struct loaded_image {
	u32 revision;
	void *parent, *system_table, *device, *file_path, *reserved;
	u32 load_options_size;
	const u16 *load_options;
};

/* The file \beside.txt of the volume it was loaded from, if both are there. */
static void report_beside(struct system_table *system, struct loaded_image *loaded)
{
	static const struct guid simple_file_system = {
		0x964e5b22, 0x6459, 0x11d2, {0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
	struct volume *volume;
	struct file *root, *file;
	char text[64];
	u64 size = sizeof text;

	if (system->boot->handle_protocol(loaded->device, &simple_file_system, (void **)&volume))
		report_bytes("volume", "none", 4);
	else if (volume->open(volume, &root) || root->open(root, &file, L"\\beside.txt", 1, 0) ||
		 file->read(file, &size, text))
		report_bytes("volume", "empty", 5);
	else
		report_bytes("volume", text, (u32)size);
}

u64 EFIAPI efi_main(void *image, struct system_table *system)
{
	static const struct guid loaded_image_protocol = {
		0x5b1b31a1, 0x9562, 0x11d2, {0x8e, 0x3f, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
	struct loaded_image *loaded;
	char words[256];
	u32 length = 0;

	report_begin("efi");
	if (system->boot->handle_protocol(image, &loaded_image_protocol, (void **)&loaded))
		report_end("exit=1", 6);
	report_beside(system, loaded);
	report_bytes("cmdline", loaded->load_options, loaded->load_options_size); /* UTF-16LE */
	while (length < loaded->load_options_size / 2 && length < sizeof words) {
		words[length] = (char)loaded->load_options[length];
		length++;
	}
	report_end(words, length);
}
