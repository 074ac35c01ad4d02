//! libjpeg's decoder, through the bindings of `mozjpeg-sys`.
//!
//! The crate `mozjpeg` wraps the same decoder, but drops its warnings and does not allow another
//! inverse DCT (see [`inverse_dct`]).

use std::ffi::{c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;

use mozjpeg_sys::{
    J_COLOR_SPACE, JWRN_ADOBE_XFORM, JWRN_JFIF_MAJOR, jpeg_common_struct, jpeg_component_info,
    jpeg_create_decompress, jpeg_decompress_struct, jpeg_destroy_decompress, jpeg_error_mgr,
    jpeg_finish_decompress, jpeg_mem_src, jpeg_read_header, jpeg_read_scanlines,
    jpeg_start_decompress, jpeg_std_error,
};

use super::inverse_dct::inverse_dct;

/// Bytes of the longest message, `JMSG_LENGTH_MAX`.
const MESSAGE: usize = 200;

/// Levels of a whole image, `(H,W,C)`.
pub(super) struct Decoded {
    pub levels: Vec<u8>,
    /// The first warning about the image data, if there was any.
    pub warning: Option<String>,
}

/// A JPEG file whose header has been read.
pub(super) struct Decoder<'a> {
    // libjpeg keeps pointers to both, so they must not move.
    info: Box<jpeg_decompress_struct>,
    errors: *mut Errors,
    bytes: PhantomData<&'a [u8]>,
}

/// libjpeg's error manager, followed by the messages received.
#[repr(C)]
struct Errors {
    manager: jpeg_error_mgr,
    warning: Option<String>,
}

impl<'a> Decoder<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// libjpeg's message.
    pub fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let length = bytes.len().try_into().map_err(|_| "the file is too long".to_owned())?;
        // SAFETY: all fields of both structs are numbers, pointers and optional functions, and zeros
        // are valid for each.
        let (info, manager) = unsafe { (Box::new(mem::zeroed()), mem::zeroed()) };
        let errors = Box::into_raw(Box::new(Errors { manager, warning: None }));
        let mut decoder = Self { info, errors, bytes: PhantomData };
        decoder.guarded(|info| {
            // SAFETY: `errors` lives as long as `info`, whose memory does not move; `bytes` outlives both.
            unsafe {
                info.common.err = jpeg_std_error(&mut (*errors).manager);
                // Derived from the whole of `Errors`, so that handlers may access the fields after
                // the manager.
                info.common.err = errors.cast();
                (*errors).manager.error_exit = Some(fail);
                (*errors).manager.emit_message = Some(tell);
                jpeg_create_decompress(info);
                jpeg_mem_src(info, bytes.as_ptr(), length);
                jpeg_read_header(info, 1);
            }
        })?;
        Ok(decoder)
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.info.image_width, self.info.image_height)
    }

    /// Number of colour components.
    pub fn components(&self) -> usize {
        usize::try_from(self.info.num_components).unwrap_or(0)
    }

    /// Decodes the image in the given colours, which have `channels` components.
    ///
    /// # Errors
    /// libjpeg's message; an image that does not fit in memory.
    pub fn decode(mut self, colours: J_COLOR_SPACE, channels: usize) -> Result<Decoded, String> {
        let (width, height) = self.size();
        let stride = width as usize * channels;
        let mut levels = Vec::new();
        let bytes = stride.checked_mul(height as usize);
        let reserved = bytes.and_then(|n| levels.try_reserve_exact(n).ok().map(|()| n));
        levels.resize(reserved.ok_or("the image does not fit in memory")?, 0u8);
        self.guarded(|info| {
            info.out_color_space = colours;
            // SAFETY: `info` is that of an opened decoder. Every row has room for the pixels of a line:
            // without scaling the output is as wide as the image, which is checked.
            unsafe {
                jpeg_start_decompress(info);
                let line = info.output_width as usize * info.output_components.max(0) as usize;
                if line != stride || info.output_height != height {
                    return false;
                }
                use_our_inverse_dct(info);
                for row in levels.chunks_exact_mut(stride) {
                    let mut start = row.as_mut_ptr();
                    jpeg_read_scanlines(info, &mut start, 1);
                }
                jpeg_finish_decompress(info);
                true
            }
        })?
        .then_some(())
        .ok_or("the image's size changed during decoding")?;
        // SAFETY: `errors` was made by `Box::into_raw`, and nothing else refers to it here.
        let warning = unsafe { (*self.errors).warning.take() };
        Ok(Decoded { levels, warning })
    }

    /// Runs `work`; libjpeg's errors unwind to this function.
    fn guarded<T>(
        &mut self,
        work: impl FnOnce(&mut jpeg_decompress_struct) -> T,
    ) -> Result<T, String> {
        // After an error the decoder may only be destroyed.
        catch_unwind(AssertUnwindSafe(|| work(&mut self.info))).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            text.unwrap_or("no reason").to_owned()
        })
    }
}

impl Drop for Decoder<'_> {
    fn drop(&mut self) {
        // SAFETY: destroying is allowed at any time, even before the creation has finished: all
        // pointers were zero before. `errors` comes from `Box::into_raw` and is not used afterwards.
        unsafe {
            jpeg_destroy_decompress(&mut self.info);
            drop(Box::from_raw(self.errors));
        }
    }
}

/// Handles a fatal libjpeg error. `resume_unwind` calls no panic hook.
#[cold]
unsafe extern "C-unwind" fn fail(info: &mut jpeg_common_struct) {
    // SAFETY: libjpeg calls this with its own struct.
    let message = unsafe { message(info) };
    resume_unwind(Box::new(message));
}

/// A warning (level −1) or a trace message.
unsafe extern "C-unwind" fn tell(info: &mut jpeg_common_struct, level: c_int) {
    if level >= 0 {
        return;
    }
    // SAFETY: `err` is the address of an `Errors`, which `Decoder::open` stored.
    unsafe {
        let errors = info.err.cast::<Errors>();
        let code = (*errors).manager.msg_code;
        // These warnings are about numbers in the header, which Pillow also ignores.
        let harmless = code == JWRN_JFIF_MAJOR || code == JWRN_ADOBE_XFORM;
        if !harmless && (*errors).warning.is_none() {
            let text = message(info);
            (*errors).warning = Some(text);
        }
    }
}

/// The text of libjpeg's last message.
///
/// # Safety
/// `info` is a struct that libjpeg has passed to a handler.
unsafe fn message(info: &mut jpeg_common_struct) -> String {
    type Format = unsafe extern "C-unwind" fn(*mut jpeg_common_struct, *mut u8);
    let mut text = [0u8; MESSAGE];
    // SAFETY: the binding declares a buffer of 80 bytes that is not written to; libjpeg's own
    // declaration is `void (*)(j_common_ptr, char *)` with `JMSG_LENGTH_MAX` bytes, and both arguments
    // are pointers.
    unsafe {
        let Some(format) = (*info.err).format_message else { return "no message".into() };
        let format: Format = mem::transmute(format as *const c_void);
        format(info, text.as_mut_ptr());
    }
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(MESSAGE);
    String::from_utf8_lossy(&text[..end]).into_owned()
}

type Method = unsafe extern "C-unwind" fn(
    *mut jpeg_decompress_struct,
    *mut jpeg_component_info,
    *mut i16,
    *mut *mut u8,
    c_uint,
);

/// `struct jpeg_inverse_dct` of jpegint.h: the decoder's inverse DCT of each component.
#[repr(C)]
struct Methods {
    _start_pass: Option<unsafe extern "C-unwind" fn(*mut jpeg_decompress_struct)>,
    of_component: [Option<Method>; 10],
}

unsafe extern "C-unwind" {
    fn jpeg_idct_islow(
        _: *mut jpeg_decompress_struct,
        _: *mut jpeg_component_info,
        _: *mut i16,
        _: *mut *mut u8,
        _: c_uint,
    );
}

/// Replaces libjpeg's exact C transform by ours in every component that uses it.
///
/// # Safety
/// Decompression has started.
unsafe fn use_our_inverse_dct(info: &mut jpeg_decompress_struct) {
    // The binding keeps `idct` private. It is the fourth pointer from the end in libjpeg 6b's struct,
    // whose layout is an ABI; libjpeg has checked the struct's size.
    const AT: usize = size_of::<jpeg_decompress_struct>() - 4 * size_of::<*mut c_void>();
    // SAFETY: the field lies inside the struct, and points to the methods once decompression has
    // started.
    unsafe {
        let field = ptr::from_mut(info).byte_add(AT).cast::<*mut Methods>();
        let Some(methods) = (*field).as_mut() else { return };
        for method in methods.of_component.iter_mut() {
            if method.is_some_and(|own| ptr::fn_addr_eq(own, jpeg_idct_islow as Method)) {
                *method = Some(ours);
            }
        }
    }
}

/// [`inverse_dct`] as libjpeg calls it.
unsafe extern "C-unwind" fn ours(
    _: *mut jpeg_decompress_struct,
    component: *mut jpeg_component_info,
    coefficients: *mut i16,
    rows: *mut *mut u8,
    column: c_uint,
) {
    // SAFETY: libjpeg passes a block of 64 coefficients, eight rows with room for eight levels from
    // `column` on, and a component whose table, if it has one, lives as long as the decoder.
    unsafe {
        let table = (*component).quant_table.as_ref();
        // Without a table there has been no scan of this component.
        let steps = table.map_or([0; 64], |table| table.quantval);
        let levels = inverse_dct(&*coefficients.cast(), &steps);
        for (row, levels) in levels.iter().enumerate() {
            let to = (*rows.add(row)).add(column as usize);
            ptr::copy_nonoverlapping(levels.as_ptr(), to, 8);
        }
    }
}
