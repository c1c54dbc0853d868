/* The Multiboot header, and the first instructions: a stack, then C. */
#define MAGIC 0x1badb002
#define FLAGS 3 /* modules on page boundaries, tell us about memory */

	.section .multiboot, "a"
	.balign	4
	.long	MAGIC, FLAGS, -(MAGIC + FLAGS)

	.text
	.globl	start
start:
	movl	$stack_end, %esp
	pushl	%ebx            /* the Multiboot information */
	call	hello

	.bss
	.balign	16
	.skip	16384
stack_end:

	.section .note.GNU-stack, "", @progbits
