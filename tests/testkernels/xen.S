/* Xen entry: a 64-bit PV kernel or a 32-bit PVH kernel, told by the ELF notes that follow. */
	.macro	note type, size, value:vararg
	.section .note.Xen, "a", @note
	.balign	4
	.long	4, 2f - 1f, \type
	.asciz	"Xen"
1:	\size	\value
2:
	.endm

#ifdef __x86_64__
	note	1, .quad, start
	note	2, .quad, hypercall_page
	note	3, .quad, 0 /* virtual = pseudo-physical: the builder maps it so before we run */
	note	5, .asciz, "xen-3.0"
	note	6, .asciz, "testkernel"
	note	8, .asciz, "generic"
	note	9, .asciz, "yes"
#else
	note	18, .long, start
#endif

	.text
	.globl	start
start:
	cld
#ifdef __x86_64__
	leaq	stack_end(%rip), %rsp
	movq	%rsi, %rdi
	call	kernel_main
#else
	movl	$stack_end, %esp
	pushl	%ebx
	call	kernel_main
#endif

	.bss
	.balign	4096
	.globl	hypercall_page
hypercall_page:
	.skip	4096
	.skip	16384
stack_end:
	.section .note.GNU-stack, "", @progbits
