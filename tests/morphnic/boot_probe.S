# A boot sector that reaches 64-bit long mode with paging on, as a kernel does, and tells the outside by ending QEMU:
# `isa-debug-exit` at port 0xf4 makes its exit code 33 of the 0x10 that is written.
        .code16
        .globl _start
_start: cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        # Page tables at 0x1000: the first 2 MB, one to one.
        movw    $0x1000, %di
        xorl    %eax, %eax
        movl    $0xc00, %ecx
        cld
        rep stosl
        movw    $0x2003, 0x1000
        movw    $0x3003, 0x2000
        movb    $0x83, 0x3000
        movl    $0x1000, %eax
        movl    %eax, %cr3
        movl    %cr4, %eax
        orb     $0x20, %al
        movl    %eax, %cr4
        # Long mode on, then paging and protection at once.
        movl    $0xc0000080, %ecx
        rdmsr
        orb     $1, %ah
        wrmsr
        lgdtl   gdtr - _start + 0x7c00
        movl    %cr0, %eax
        orl     $0x80000001, %eax
        movl    %eax, %cr0
        ljmpl   $8, $(long - _start + 0x7c00)
        .code64
long:   movb    $0x10, %al
        outb    %al, $0xf4
stop:   hlt
        jmp     stop
        .balign 8
gdt:    .quad   0
        .quad   0x00209a0000000000
gdtr:   .word   15
        .long   gdt - _start + 0x7c00
        .org    510
        .word   0xaa55
