/* The Linux boot protocol's test kernel: boot_params is a page of fixed offsets. */
#include "report.h"

static u32 field(const u8 *params, u32 offset)
{
	return *(const u32 *)(params + offset);
}

void kernel_main(const u8 *params)
{
	const char *cmdline = (const char *)field(params, 0x228);

	report_begin("linux");
	report_number("magic", field(params, 0x202)); /* "HdrS" */
	report_bytes("cmdline", cmdline, length_of(cmdline));
	report_number("e820-entries", params[0x1e8]);
	if (field(params, 0x21c))
		report_module("", 0, (const void *)field(params, 0x218), field(params, 0x21c));
	report_end(cmdline, length_of(cmdline));
}
