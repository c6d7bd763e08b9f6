// The stub's ELF image inside the sentry.
        .section .rodata
        .globl  moat_stub_image, moat_stub_image_end
moat_stub_image:
        .incbin "stub.elf"
moat_stub_image_end:
        .section .note.GNU-stack,"",@progbits
