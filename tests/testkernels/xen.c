/*
 * The Xen test kernel, PV and PVH: console and xenstore through their rings, nothing else. It reports its command
 * line, its modules and what xenstore holds for it under rumprun/cfg, which is where a rumprun looks too.
 */
#include "machine.h"
#include "report.h"

typedef unsigned long word; /* what a hypercall's register holds */

enum {
	HYPERCALL_SCHED = 29,
	HYPERCALL_EVENT = 32,
	HYPERCALL_HVM = 34,
	SCHED_YIELD = 0,
	SCHED_SHUTDOWN = 2,
	EVENT_SEND = 4,
	STORE_READ = 2,
};

struct console_ring {
	char in[1024], out[2048];
	volatile u32 in_cons, in_prod, out_cons, out_prod;
};

struct store_ring {
	char req[1024], rsp[1024];
	volatile u32 req_cons, req_prod, rsp_cons, rsp_prod;
};

struct store_message {
	u32 type, request, transaction, length;
};

extern char hypercall_page[];

#ifdef RUMPRUN
/* What tells a rumprun kernel: it looks for this on its command line. */
__attribute__((used)) static const char rumprun[] = "_RUMPRUN_ROOTFSCFG=";
#endif

static struct console_ring *console;
static struct store_ring *store;
static u32 console_port, store_port;

static long hypercall(int number, word first, void *second)
{
	long result;
#ifdef __x86_64__
	__asm__ volatile("call *%3"
			 : "=a"(result), "+D"(first), "+S"(second)
			 : "r"(hypercall_page + 32 * number)
			 : "rcx", "rdx", "r8", "r9", "r10", "r11", "memory");
#else
	__asm__ volatile("call *%3"
			 : "=a"(result), "+b"(first), "+c"(second)
			 : "r"(hypercall_page + 32 * number)
			 : "memory");
#endif
	return result;
}

static void yield(void)
{
	hypercall(HYPERCALL_SCHED, SCHED_YIELD, 0);
}

static void notify(u32 port)
{
	hypercall(HYPERCALL_EVENT, EVENT_SEND, &port);
}

void machine_open(void)
{
}

void machine_put(char c)
{
	if (c == '\r')
		return; /* xenconsoled's terminal adds its own */
	while (console->out_prod - console->out_cons == sizeof console->out) {
		notify(console_port);
		yield();
	}
	console->out[console->out_prod % sizeof console->out] = c;
	__asm__ volatile("" : : : "memory");
	console->out_prod++;
	if (c == '\n')
		notify(console_port);
}

char machine_get(void)
{
	while (console->in_prod == console->in_cons)
		yield();
	char c = console->in[console->in_cons % sizeof console->in];
	__asm__ volatile("" : : : "memory");
	console->in_cons++;
	notify(console_port);
	return c;
}

void machine_exit(u32 status)
{
	u32 reason = status & 15; /* power off, reboot, suspend, crash */

	/* What is still in the ring is lost with the domain. */
	notify(console_port);
	while (console->out_cons != console->out_prod)
		yield();
	hypercall(HYPERCALL_SCHED, SCHED_SHUTDOWN, &reason);
}

static void store_write(const void *data, u32 length)
{
	for (const char *byte = data; length; byte++, length--) {
		while (store->req_prod - store->req_cons == sizeof store->req)
			yield();
		store->req[store->req_prod % sizeof store->req] = *byte;
		__asm__ volatile("" : : : "memory");
		store->req_prod++;
	}
	notify(store_port);
}

static void store_read(void *data, u32 length)
{
	for (char *byte = data; length; byte++, length--) {
		while (store->rsp_prod == store->rsp_cons) {
			/* An answer may be longer than the ring: say that there is room again. */
			notify(store_port);
			yield();
		}
		*byte = store->rsp[store->rsp_cons % sizeof store->rsp];
		__asm__ volatile("" : : : "memory");
		store->rsp_cons++;
	}
	notify(store_port);
}

static void report_store(const char *name, const char *path)
{
	static char value[4096];
	struct store_message message = {STORE_READ, 1, 0, length_of(path) + 1};

	store_write(&message, sizeof message);
	store_write(path, message.length);
	store_read(&message, sizeof message);
	store_read(value, message.length);
	report_bytes(message.type == STORE_READ ? name : "xenstore-error", value, message.length);
}

#ifdef __x86_64__

struct start_info {
	char magic[32];
	u64 pages, shared_info;
	u32 flags;
	u64 store_mfn;
	u32 store_port;
	u64 console_mfn;
	u32 console_port;
	u64 page_table, page_table_frames, mfn_list, module, module_length;
	char cmdline[1024];
};

/* Where this domain sees a page it is told the machine address of. */
static void *page(u64 mfn)
{
	const u64 *pfn_of = (const u64 *)0xffff800000000000;

	return (void *)(pfn_of[mfn] << 12);
}

void kernel_main(const struct start_info *info)
{
	console = page(info->console_mfn);
	console_port = info->console_port;
	store = page(info->store_mfn);
	store_port = info->store_port;
	report_begin("xen-pv");
	report_bytes("cmdline", info->cmdline, length_of(info->cmdline));
	if (info->module_length)
		report_module("", 0, (const void *)info->module, info->module_length);
	report_store("config", "rumprun/cfg");
	report_end(info->cmdline, length_of(info->cmdline));
}

#else

struct pvh_start {
	u32 magic, version, flags, modules;
	u64 modules_at, cmdline, rsdp;
};

struct pvh_module {
	u64 at, size, cmdline, reserved;
};

static u32 parameter(u32 index)
{
	struct {
		u16 domain;
		u32 index;
		u64 value;
	} get = {0x7ff0 /* this domain */, index, 0};

	hypercall(HYPERCALL_HVM, 1, &get);
	return (u32)get.value;
}

void kernel_main(const struct pvh_start *info)
{
	const char *cmdline = info->cmdline ? (const char *)(word)info->cmdline : "";
	const struct pvh_module *modules = (const struct pvh_module *)(word)info->modules_at;
	u32 eax = 0x40000002, msr, ecx, edx;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(msr), "=c"(ecx), "=d"(edx));
	__asm__ volatile("wrmsr" : : "c"(msr), "a"(hypercall_page), "d"(0) : "memory");
	console = (void *)(parameter(17) << 12);
	console_port = parameter(18);
	store = (void *)(parameter(1) << 12);
	store_port = parameter(2);
	report_begin("xen-pvh");
	report_number("magic", info->magic);
	report_bytes("cmdline", cmdline, length_of(cmdline));
	for (u32 i = 0; i < info->modules; i++) {
		const char *text = modules[i].cmdline ? (const char *)(word)modules[i].cmdline : "";
		report_module(text, length_of(text), (const void *)(word)modules[i].at, (u32)modules[i].size);
	}
	report_store("config", "rumprun/cfg");
	report_end(cmdline, length_of(cmdline));
}

#endif
