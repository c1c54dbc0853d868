/*
 * Multiboot entry. HEADER1 and HEADER2 say which headers to carry; HEADER_AT is the header's distance from the
 * start of the segment; KLUDGE adds the load addresses that let a flat binary be loaded; FRAMEBUFFER asks for one;
 * SERVICES asks for EFI's boot services to be kept; LONG begins with code for 64-bit mode, the report's is for 32 bits;
 * TRIPLE ends in a triple fault before a word is said.
 */
#ifndef HEADER_AT
#define HEADER_AT 0
#endif
	.section .head, "ax"
	.code32
head:
	.skip	HEADER_AT
#ifdef HEADER1
#ifdef KLUDGE
#define FLAGS 0x10003
#else
#define FLAGS 3
#endif
	.balign	4
header1:
	.long	0x1badb002, FLAGS, -(0x1badb002 + FLAGS)
#ifdef KLUDGE
	.long	header1, head, load_end, bss_end, start
#endif
#endif
#ifdef HEADER2
	.balign	8
header2:
	.long	0xe85250d6, 0, header2_end - header2, -(0xe85250d6 + (header2_end - header2))
#ifdef FRAMEBUFFER
	.short	5, 0
	.long	20, 1024, 768, 32
	.balign	8
#endif
#ifdef SERVICES
	.short	7, 0
	.long	8
#endif
	.long	0, 8
header2_end:
#endif

	.text
	.globl	start
start:
#ifdef LONG
	.code64
	leaq	long(%rip), %rbx
	movw	$0x3f8, %dx
1:	movb	(%rbx), %al
	outb	%al, %dx
	incq	%rbx
	cmpb	$'\n', %al
	jne	1b
	movl	$16, %eax
	outl	%eax, $0xf4
long:	.ascii	"64-bit mode\n"
	.code32
#endif
#ifdef TRIPLE
	lidt	no_interrupts
	ud2
no_interrupts:
	.skip	6
#endif
	cld
	movl	$stack_end, %esp
	pushl	%ebx
	pushl	%eax
	call	kernel_main

	.bss
	.balign	16
	.skip	16384
stack_end:
	.section .note.GNU-stack, "", @progbits
