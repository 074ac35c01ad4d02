//! The micro-kernel on AMX: two by two tiles of sums.
//!
//! The intrinsics are not stable, so the instructions stand as assembly, one block a call: the
//! compiler knows of no tile registers. The Linux kernel hands tiles to a process that asks.

use super::blocks::Group;
use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::mem::offset_of;

/// Whether the processor has AMX-BF16 and the kernel lets this process use it; asks for it.
pub fn granted() -> bool {
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    /// `ARCH_REQ_XCOMP_PERM` of arch_prctl(2), for the tile registers (component 18).
    const REQUEST: [libc::c_long; 2] = [0x1023, 18];
    let wanted = AMX_BF16 | AMX_TILE;
    if __cpuid_count(0, 0).eax < 7 || __cpuid_count(7, 0).edx & wanted != wanted {
        return false;
    }
    // SAFETY: the call reads two numbers and changes what the process may use, nothing else. It
    // fails on kernels without AMX, and where the system forbids it.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST[0], REQUEST[1]) == 0 }
}

/// The tile registers of this thread, all 16 rows of 64 bytes, until dropped.
pub struct Registers;

impl Registers {
    /// Configures them.
    ///
    /// # Safety
    /// [`granted`] has returned true.
    pub unsafe fn new() -> Self {
        #[repr(C, align(64))]
        struct Palette([u8; 64]);
        let mut palette = Palette([0; 64]);
        palette.0[0] = 1;
        for tile in 0..8 {
            palette.0[16 + 2 * tile] = 64;
            palette.0[48 + tile] = 16;
        }
        // SAFETY: palette 1 with eight tiles of 1 KiB is what AMX has.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &palette, options(nostack, preserves_flags));
        }
        Self
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: they were configured. Released, they cost nothing at a change of threads.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags)) };
    }
}

/// One block, its strip of A in the first-level cache and B, passing through, not (the hint T1):
/// sums in registers 0 to 3, A in 4 and 5, B in 6 and 7. In a step along K, a and p
/// point at the two tiles of A, b and q at those of B, and s is a tile's row. At the end q is 16
/// rows below p.
macro_rules! block {
    ($group:expr, zero $zero:tt, step $step:tt, store $store:tt) => {{
        let g: &Group = $group;
        block!(@ g, $zero, $step, $store)
    }};
    (@ $g:ident, [$($zero:literal),+], [$($step:literal),+], [$($store:literal),+]) => {
        asm!(
            $($zero,)+
            "test {k}, {k}",
            "jz 3f",
            "2:",
            $($step,)+
            "add {a}, 1024",
            "add {b}, 1024",
            "add {p}, 1024",
            "add {q}, 1024",
            "dec {k}",
            "jnz 2b",
            "3:",
            "mov {p}, [{g} + {sums}]",
            "mov {s}, [{g} + {stride}]",
            "mov {q}, {s}",
            "shl {q}, 4",
            "add {q}, {p}",
            $($store,)+
            g = in(reg) $g,
            k = inout(reg) $g.depth => _,
            a = inout(reg) $g.a => _,
            b = inout(reg) $g.b => _,
            p = inout(reg) $g.a.wrapping_add($g.step) => _,
            q = inout(reg) $g.b.wrapping_add($g.step) => _,
            s = inout(reg) 64usize => _,
            sums = const offset_of!(Group, sums),
            stride = const offset_of!(Group, stride),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// `rows` by `columns` tiles of sums, one or two each.
///
/// # Safety
/// As [`Group`]'s fields promise, and this thread holds [`Registers`].
pub unsafe fn multiply(rows: usize, columns: usize, group: &Group) {
    // SAFETY: the caller's promise.
    unsafe {
        match (rows, columns) {
            (2, 2) => block!(group,
            zero ["tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3"],
            step [
                "tileloadd tmm4, [{a} + {s}]", "tileloaddt1 tmm6, [{b} + {s}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloaddt1 tmm7, [{q} + {s}]", "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{p} + {s}]", "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7"
            ],
            store [
                "tilestored [{p} + {s}], tmm0", "tilestored [{p} + {s} + 64], tmm1",
                "tilestored [{q} + {s}], tmm2", "tilestored [{q} + {s} + 64], tmm3"
            ]),
            (2, _) => block!(group,
                zero ["tilezero tmm0", "tilezero tmm2"],
                step [
                    "tileloadd tmm4, [{a} + {s}]", "tileloaddt1 tmm6, [{b} + {s}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm5, [{p} + {s}]", "tdpbf16ps tmm2, tmm5, tmm6"
                ],
                store ["tilestored [{p} + {s}], tmm0", "tilestored [{q} + {s}], tmm2"]),
            (_, 2) => block!(group,
                zero ["tilezero tmm0", "tilezero tmm1"],
                step [
                    "tileloadd tmm4, [{a} + {s}]", "tileloaddt1 tmm6, [{b} + {s}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloaddt1 tmm7, [{q} + {s}]", "tdpbf16ps tmm1, tmm4, tmm7"
                ],
                store ["tilestored [{p} + {s}], tmm0", "tilestored [{p} + {s} + 64], tmm1"]),
            _ => block!(group,
                zero ["tilezero tmm0"],
                step [
                    "tileloadd tmm4, [{a} + {s}]", "tileloaddt1 tmm6, [{b} + {s}]",
                    "tdpbf16ps tmm0, tmm4, tmm6"
                ],
                store ["tilestored [{p} + {s}], tmm0"]),
        }
    }
}
