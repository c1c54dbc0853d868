/*
 * The Linux/x86 boot protocol, version 2.12 (Linux, Documentation/arch/x86/boot.rst). A loader enters the
 * real-mode part behind the setup header (QEMU, GRUB's linux16), or the protected-mode part at 1 MiB: in 32-bit mode
 * at its start or in 64-bit mode at 0x200 (GRUB's linux), with boot_params in esi/rsi. CODE32_START=0 says that
 * only the real-mode entry will do, as iPXE's kernel does.
 */
#ifndef CODE32_START
#define CODE32_START 0x100000
#endif
	.macro	descriptors /* none, 4 GiB of code, 4 GiB of data */
	.quad	0, 0x00cf9a000000ffff, 0x00cf92000000ffff
	.endm

	.section .setup, "aw"
	.code16
setup:
	.skip	0x1f1
	.byte	1               /* setup_sects: one after the boot sector */
	.word	0
	.long	protected_paragraphs
	.word	0, 0, 0, 0xaa55
	.byte	0xeb            /* jmp: its distance tells the header's end */
	.byte	start16 - header
header:
	.ascii	"HdrS"
	.word	0x20c           /* version */
	.long	0
	.word	0, version - setup - 512
	.byte	0, 1            /* type_of_loader, loadflags: LOADED_HIGH */
	.word	0
	.long	CODE32_START
	.long	0, 0, 0         /* ramdisk_image, ramdisk_size, bootsect_kludge */
	.word	0
	.byte	0, 0
	.long	0               /* cmd_line_ptr */
	.long	0x7fffffff      /* initrd_addr_max */
	.long	0x1000          /* kernel_alignment */
	.byte	0, 0            /* not relocatable */
	.word	1               /* xloadflags: 64-bit entry */
	.long	2047            /* cmdline_size */
	.long	0
	.quad	0
	.long	0, 0
	.quad	0
	.quad	0x100000        /* pref_address */
	.long	init_size
	.long	0               /* handover_offset: no EFI stub */
start16:
	cli
	xorl	%esi, %esi
	movw	%ds, %si
	shll	$4, %esi        /* the setup header is where boot_params has it */
	leal	gdt16 - setup(%esi), %eax
	movl	%eax, gdt16_pointer - setup + 2
	lgdtl	gdt16_pointer - setup
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	movw	$16, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	ljmpl	$8, $0x100000
	.balign	8
gdt16:
	descriptors
gdt16_pointer:
	.word	. - gdt16 - 1
	.long	0
version:
	.asciz	"testkernel"
	.org	1024

/* What the 64-bit code needs to know as numbers: an i386 object has no relocations for it. */
#define AT(label) (0x100000 + label - entry32)

	.section .head, "ax"
	.code32
	.globl	entry32
entry32:
	cld
	movl	$stack_end, %esp
	pushl	%esi
	call	kernel_main

	.org	0x200
	.code64
	/* From long mode back to 32-bit: a descriptor table of our own, compatibility mode, paging off. */
	lgdt	AT(gdt64_pointer)
	movl	$AT(stack64), %esp
	pushq	$8
	pushq	$AT(leave_long_mode)
	lretq
	.code32
leave_long_mode:
	movl	$16, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	%cr0, %eax
	andl	$0x7fffffff, %eax
	movl	%eax, %cr0
	movl	$0xc0000080, %ecx /* EFER: LME off */
	rdmsr
	andl	$0xfffffeff, %eax
	wrmsr
	xorl	%eax, %eax
	movl	%eax, %cr4
	jmp	entry32
	.balign	8
gdt64:
	descriptors
gdt64_pointer:
	.word	. - gdt64 - 1
	.quad	AT(gdt64)
	.skip	64
stack64:

	.bss
	.balign	16
	.skip	16384
stack_end:
	.section .note.GNU-stack, "", @progbits
