//! A safetensors file read tensor by tensor, with only its header in memory. A checkpoint of any
//! size takes the memory of its largest tensor.

use super::{Entry, Error, Header, hex};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// An open file with a verified header.
#[derive(Debug)]
pub(super) struct OnDisk {
    path: PathBuf,
    file: File,
    /// Its header.
    pub header: Header,
    /// The serialised header: length field, JSON and padding.
    pub header_bytes: Vec<u8>,
}

impl OnDisk {
    /// Opens a file and verifies its header against its length.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Header`], with the place, the expected and the found content.
    pub fn open(path: &Path) -> Result<OnDisk, Error> {
        let read = Error::io(path, "read");
        let found = (|| {
            let mut file = File::open(path)?;
            let length = file.metadata()?.len();
            let mut bytes = Vec::new();
            (&mut file).take(Header::LENGTH_FIELD as u64).read_to_end(&mut bytes)?;
            let rest = Header::rest(&bytes).unwrap_or(0) as u64;
            (&mut file).take(rest).read_to_end(&mut bytes)?;
            Ok((file, bytes, length))
        })();
        let (file, header_bytes, length) = found.map_err(read)?;
        let header = Header::parse(path, &header_bytes)?;
        let data = length.saturating_sub(header.data_start as u64);
        header.verify(path, usize::try_from(data).unwrap_or(usize::MAX))?;
        Ok(OnDisk { path: path.into(), file, header, header_bytes })
    }

    /// A tensor's bytes.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Changed`] if the file has become shorter since it was opened.
    pub fn bytes_of(&self, entry: &Entry) -> Result<Vec<u8>, Error> {
        let (start, end) = entry.span;
        let mut bytes = vec![0; end - start];
        let mut file = &self.file;
        file.seek(SeekFrom::Start((self.header.data_start + start) as u64))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => Error::Changed { path: self.path.clone() },
                _ => Error::io(&self.path, "read")(error),
            })?;
        Ok(bytes)
    }

    /// The bytes of a tensor, if the file has it with the same type and shape.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn tensor(&self, like: &Entry) -> Result<Option<Vec<u8>>, Error> {
        let same = |e: &&Entry| e.name == like.name && e.dtype == like.dtype;
        let entry = self.header.entries.iter().find(same).filter(|e| e.shape == like.shape);
        entry.map(|entry| self.bytes_of(entry)).transpose()
    }

    /// Calls `each` with every tensor's bytes in the file's order. Returns the SHA-256 of the whole
    /// file, in hex, computed from the same bytes.
    ///
    /// # Errors
    /// [`Error::Io`]; those of `each`.
    pub fn digest_with(
        &self,
        mut each: impl FnMut(&Entry, Vec<u8>) -> Result<(), Error>,
    ) -> Result<String, Error> {
        let mut hash = Sha256::new_with_prefix(&self.header_bytes);
        for entry in self.header.in_file_order() {
            let bytes = self.bytes_of(entry)?;
            hash.update(&bytes);
            each(entry, bytes)?;
        }
        Ok(hex(&hash.finalize()))
    }

    /// SHA-256 of the whole file, in hex.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn digest(&self) -> Result<String, Error> {
        self.digest_with(|_, _| Ok(()))
    }
}
