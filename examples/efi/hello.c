/* An EFI application in one page: firmware starts it, there is no kernel and no boot loader. UEFI specification, 4.3. */
#include <stdint.h>

#define EFIAPI __attribute__((ms_abi))

struct output {
	void *reset;
	uint64_t (EFIAPI *print)(struct output *output, const uint16_t *text);
};

struct runtime {
	char header[24];
	void *before_reset[10];
	void (EFIAPI *reset)(int kind, uint64_t status, uint64_t size, void *data);
};

struct system {
	char header[24];
	const uint16_t *vendor;
	uint32_t revision;
	void *input_handle, *input, *output_handle;
	struct output *output;
	void *error_handle, *error;
	struct runtime *runtime;
};

enum { SHUTDOWN = 2 };

EFIAPI uint64_t efi_main(void *image, struct system *system)
{
	(void)image;
	system->output->print(system->output, L"Hello from UEFI.\r\n");
	system->runtime->reset(SHUTDOWN, 0, 0, 0);
	return 0;
}
