//! The files of a checkpoint, read tensor by tensor, with only the header in memory. A checkpoint of
//! any size takes the memory of its largest tensor.

use super::contents::Contents;
use super::locate::{Format, format};
use super::view::View;
use super::{Entry, Error, Header, hex, npz, shards, torch};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The beginning of a file that stands for another one, which Git LFS stores.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// An open file with a verified header.
#[derive(Debug)]
pub(super) struct OnDisk {
    path: PathBuf,
    files: Vec<File>,
    /// Its header; that of the same tensors in one safetensors file if it has another format.
    pub header: Header,
    /// The serialised header: length field, JSON and padding.
    pub header_bytes: Vec<u8>,
    /// Key of the model in the header, if the file may have several.
    pub chosen: Option<String>,
    /// Where the tensors lie; `None` for one safetensors file.
    places: Option<HashMap<String, Vec<View>>>,
}

/// An error for a file of another format than safetensors.
pub(super) fn damaged(
    path: &Path,
    place: &str,
    expected: String,
    found: String,
    writer: &'static str,
) -> Error {
    let (place, expected, found) = (place.into(), expected.into(), found.into());
    Error::Damaged { path: path.into(), place, expected, found, writer }
}

/// Opens a file, unless it stands for another one.
pub(super) fn open_file(path: &Path) -> Result<File, Error> {
    let mut start = Vec::new();
    let file = File::open(path).and_then(|mut file| {
        (&mut file).take(LFS_POINTER.len() as u64).read_to_end(&mut start)?;
        file.rewind()?;
        Ok(file)
    });
    let file = file.map_err(Error::io(path, "read"))?;
    match start == LFS_POINTER {
        true => Err(Error::LfsPointer { path: path.into() }),
        false => Ok(file),
    }
}

impl OnDisk {
    /// Opens a safetensors file and verifies its header against its length.
    ///
    /// # Errors
    /// [`Error::OnlySafetensors`] for another format; [`Error::Io`], [`Error::LfsPointer`];
    /// [`Error::Header`], with the place, the expected and the found content.
    pub fn open(path: &Path) -> Result<OnDisk, Error> {
        if let Some(found) = format(path).filter(|&format| format != Format::Safetensors) {
            let (path, found) = (path.into(), found.name().into());
            return Err(Error::OnlySafetensors { path, found });
        }
        let mut file = open_file(path)?;
        let found = (|| {
            let length = file.metadata()?.len();
            let mut bytes = Vec::new();
            (&mut file).take(Header::LENGTH_FIELD as u64).read_to_end(&mut bytes)?;
            let rest = Header::rest(&bytes).unwrap_or(0) as u64;
            (&mut file).take(rest).read_to_end(&mut bytes)?;
            Ok((bytes, length))
        })();
        let (header_bytes, length) = found.map_err(Error::io(path, "read"))?;
        let header = Header::parse(path, &header_bytes)?;
        let data = length.saturating_sub(header.data_start as u64);
        header.verify(path, usize::try_from(data).unwrap_or(usize::MAX))?;
        let (path, files) = (path.into(), vec![file]);
        Ok(OnDisk { path, files, header, header_bytes, chosen: None, places: None })
    }

    /// Opens a checkpoint of any format. `wanted` is the option `weights`.
    ///
    /// # Errors
    /// Those of [`OnDisk::open`], and of the readers of the other formats.
    pub fn open_any(path: &Path, wanted: Option<&str>) -> Result<OnDisk, Error> {
        let (files, contents) = match format(path) {
            None | Some(Format::Safetensors) => return OnDisk::open(path),
            Some(Format::Shards) => shards::read(path, wanted)?,
            Some(Format::Torch) => {
                let file = open_file(path)?;
                let contents = torch::read(path, &file, 0, wanted)?;
                (vec![file], contents)
            }
            Some(Format::Numpy) => {
                let file = open_file(path)?;
                let contents = npz::read(path, &file)?;
                (vec![file], contents)
            }
        };
        OnDisk::of(path, files, contents)
    }

    /// A checkpoint with these contents.
    fn of(path: &Path, files: Vec<File>, contents: Contents) -> Result<OnDisk, Error> {
        let mut held = 0u64;
        for file in &files {
            held += file.metadata().map_err(Error::io(path, "read"))?.len();
        }
        // Names may share their bytes, so that a small file describes many tensors.
        if contents.size().is_none_or(|size| size > held.saturating_mul(2)) {
            let expected = format!("tensors of at most twice the file's {held} bytes");
            let found = "more, since tensors share their values".to_string();
            return Err(damaged(path, "tensors", expected, found, "its library"));
        }
        if contents.tensors.iter().any(|tensor| tensor.name == "__metadata__") {
            let found = "`__metadata__`, which safetensors reserves".to_string();
            return Err(damaged(path, "tensors", "names of weights".into(), found, "its library"));
        }
        let chosen = contents.chosen.clone();
        let (header, places) = contents.into_header();
        let header_bytes = header.to_bytes();
        let header = Header { data_start: header_bytes.len(), ..header };
        let (path, places) = (path.into(), Some(places));
        Ok(OnDisk { path, files, header, header_bytes, chosen, places })
    }

    /// A tensor's bytes.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Changed`] if the file has become shorter since it was opened.
    pub fn bytes_of(&self, entry: &Entry) -> Result<Vec<u8>, Error> {
        let (start, end) = entry.span;
        let read = match &self.places {
            None => self.files.first().map_or(Ok(Vec::new()), |mut file| {
                let mut bytes = vec![0; end - start];
                file.seek(SeekFrom::Start((self.header.data_start + start) as u64))?;
                file.read_exact(&mut bytes).map(|()| bytes)
            }),
            Some(places) => {
                let views = places.get(&entry.name).map_or(&[][..], Vec::as_slice);
                let parts = views.iter().filter_map(|v| Some((v, self.files.get(v.file())?)));
                let read = parts.map(|(view, file)| view.read(file)).collect::<Result<Vec<_>, _>>();
                // The usual tensor has one part, which is not copied.
                read.map(
                    |mut parts| if parts.len() == 1 { parts.remove(0) } else { parts.concat() },
                )
            }
        };
        read.map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Error::Changed { path: self.path.clone() },
            _ => Error::io(&self.path, "read")(error),
        })
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

    /// Calls `each` with every tensor's bytes in the file's order. Returns the SHA-256, in hex, of
    /// the whole safetensors file, computed from the same bytes. For another format, this is the
    /// digest of a safetensors file with the same tensors.
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

    /// SHA-256 of the whole file, in hex, as from [`OnDisk::digest_with`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn digest(&self) -> Result<String, Error> {
        self.digest_with(|_, _| Ok(()))
    }
}
