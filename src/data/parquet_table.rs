//! A column of encoded images in a Parquet file, read page by page.
//!
//! Only the places of pages are kept in memory, and the pages used last, up to 128 MiB for all files of a data set.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;

/// Most bytes of pages that are kept.
const KEPT: usize = 128 << 20;
/// Most bytes that a compressed byte gives: Snappy copies 64 bytes with three.
const MOST_RATIO: u64 = 64;
/// Rows that are read at a time.
const AT_A_TIME: usize = 1 << 12;

/// A Parquet file. Its pages are checked before memory is allocated for them.
pub(super) struct Table {
    path: PathBuf,
    /// Schema, row groups and notes of the writer.
    pub metadata: Arc<ParquetMetaData>,
}

/// Values of a column without nulls.
pub(super) enum Column {
    /// Whole numbers.
    Numbers(Vec<i64>),
    /// Texts.
    Texts(Vec<String>),
}

impl Table {
    /// Reads the metadata at the end of the file.
    ///
    /// # Errors
    /// Those of the system and of a file that is not Parquet.
    pub fn open(path: &Path) -> Result<Self, ParquetError> {
        let file = File::open(path)?;
        let metadata = guarded(|| ParquetMetaDataReader::new().parse_and_finish(&file))?;
        Ok(Self { path: path.to_owned(), metadata: Arc::new(metadata) })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        let rows = |group: &parquet::file::metadata::RowGroupMetaData| group.num_rows();
        self.metadata.row_groups().iter().map(rows).map(|n| usize::try_from(n).unwrap_or(0)).sum()
    }

    fn pages(
        &self,
        group: usize,
        column: usize,
    ) -> Result<SerializedPageReader<Pages>, ParquetError> {
        let group = self.metadata.row_group(group);
        let rows = usize::try_from(group.num_rows()).unwrap_or(0);
        let source = Arc::new(Pages::open(&self.path)?);
        SerializedPageReader::new(source, group.column(column), rows, None)
    }

    /// The values of a column of whole numbers or texts; `None` for other types and for nulls.
    ///
    /// # Errors
    /// Damaged pages.
    pub fn column(&self, column: usize) -> Result<Option<Column>, ParquetError> {
        guarded(|| self.values(column))
    }

    fn values(&self, column: usize) -> Result<Option<Column>, ParquetError> {
        let (mut numbers, mut texts) = (Vec::new(), Vec::new());
        for group in 0..self.metadata.num_row_groups() {
            let described = self.metadata.file_metadata().schema_descr().column(column);
            let rows = usize::try_from(self.metadata.row_group(group).num_rows()).unwrap_or(0);
            let pages = Box::new(self.pages(group, column)?);
            let whole = match get_column_reader(described, pages) {
                ColumnReader::Int64ColumnReader(reader) => {
                    all::<Int64Type>(reader, rows, |n| numbers.push(n))?
                }
                ColumnReader::Int32ColumnReader(reader) => {
                    all::<Int32Type>(reader, rows, |n| numbers.push(n.into()))?
                }
                ColumnReader::ByteArrayColumnReader(reader) => {
                    all::<ByteArrayType>(reader, rows, |text| {
                        texts.push(String::from_utf8_lossy(text.data()).into_owned());
                    })?
                }
                _ => false,
            };
            if !whole {
                return Ok(None);
            }
        }
        Ok(Some(if texts.is_empty() { Column::Numbers(numbers) } else { Column::Texts(texts) }))
    }
}

/// Turns a panic into an error: the crate panics at some damaged headers.
fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    // What was read before is not used after a panic.
    let damaged = || Err(ParquetError::General("a damaged header".into()));
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| damaged())
}

/// Passes every value on. Returns whether there are as many as rows.
fn all<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    rows: usize,
    mut take: impl FnMut(T::T),
) -> Result<bool, ParquetError> {
    let mut found = 0;
    loop {
        let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
        let of = (Some(&mut definitions), Some(&mut repetitions));
        let (read, _, _) = reader.read_records(AT_A_TIME, of.0, of.1, &mut values)?;
        if read == 0 {
            return Ok(found == rows);
        }
        found += values.len();
        values.into_iter().for_each(&mut take);
    }
}

/// Rows of a row group that lie in one page.
struct PageRows {
    group: usize,
    /// First row, in the group and in the file.
    first: usize,
    start: usize,
    rows: usize,
}

/// The images of one page; `None` for null.
type Page = Vec<Option<ByteArray>>;

/// Pages of some files that were used last, by number of the file and of the page; the latest is first.
#[derive(Default)]
pub(super) struct Kept(Mutex<VecDeque<([usize; 2], Arc<Page>)>>);

/// A column of encoded images.
pub(super) struct Images {
    table: Table,
    /// Number of the file among those that share `kept`.
    file: usize,
    column: usize,
    pages: Vec<PageRows>,
    kept: Arc<Kept>,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Images").field("path", &self.table.path).finish_non_exhaustive()
    }
}

impl Images {
    /// Finds the pages of a column without reading them.
    ///
    /// # Errors
    /// Damaged headers of pages.
    pub fn of(
        table: Table,
        column: usize,
        file: usize,
        kept: Arc<Kept>,
    ) -> Result<Self, ParquetError> {
        let pages = guarded(|| Self::places(&table, column))?;
        Ok(Self { table, file, column, pages, kept })
    }

    fn places(table: &Table, column: usize) -> Result<Vec<PageRows>, ParquetError> {
        use parquet::column::page::PageReader;
        let (mut pages, mut start) = (Vec::new(), 0);
        for group in 0..table.metadata.num_row_groups() {
            let mut first = 0;
            let mut reader = table.pages(group, column)?;
            while let Some(page) = reader.peek_next_page()? {
                if let (false, Some(rows)) = (page.is_dict, page.num_rows.or(page.num_levels)) {
                    pages.push(PageRows { group, first, start: start + first, rows });
                    first += rows;
                }
                reader.skip_next_page()?;
            }
            let expected = usize::try_from(table.metadata.row_group(group).num_rows()).unwrap_or(0);
            if first != expected {
                let text = format!("pages with {first} of {expected} rows");
                return Err(ParquetError::General(text));
            }
            start += first;
        }
        Ok(pages)
    }

    /// The encoded image of a row; `None` for null.
    ///
    /// # Errors
    /// A damaged page.
    pub fn get(&self, row: usize) -> Result<Option<Vec<u8>>, ParquetError> {
        let at = self.pages.partition_point(|page| page.start <= row).saturating_sub(1);
        let Some(place) = self.pages.get(at).filter(|page| row < page.start + page.rows) else {
            return Err(ParquetError::General(format!("no row {row}")));
        };
        // One page is decompressed at a time, so that threads that need the same page wait for it.
        let mut kept = self.kept.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = [self.file, at];
        let known = kept.iter().position(|(page, _)| *page == key).and_then(|at| kept.remove(at));
        let page = match &known {
            Some((_, page)) => page.clone(),
            None => Arc::new(guarded(|| self.read(place))?),
        };
        kept.push_front((key, page.clone()));
        if known.is_none() {
            let size = |page: &Page| page.iter().flatten().map(ByteArray::len).sum::<usize>();
            let mut total = 0;
            let full = |(_, page): &([usize; 2], Arc<Page>)| {
                total += size(page);
                total > KEPT
            };
            let most = kept.iter().position(full);
            kept.truncate(most.map_or(usize::MAX, |most| most.max(1)));
        }
        drop(kept);
        Ok(page.get(row - place.start).cloned().flatten().map(|image| image.data().to_vec()))
    }

    fn read(&self, place: &PageRows) -> Result<Page, ParquetError> {
        let described = self.table.metadata.file_metadata().schema_descr().column(self.column);
        let most = described.max_def_level();
        let pages = Box::new(self.table.pages(place.group, self.column)?);
        let mut reader = ColumnReaderImpl::<ByteArrayType>::new(described, pages);
        let (mut values, mut definitions) = (Vec::new(), Vec::new());
        let skipped = reader.skip_records(place.first)?;
        let (rows, ..) =
            reader.read_records(place.rows, Some(&mut definitions), None, &mut values)?;
        if (skipped, rows) != (place.first, place.rows) {
            return Err(ParquetError::General(format!("{rows} of {} rows in a page", place.rows)));
        }
        if most == 0 {
            return Ok(values.into_iter().map(Some).collect());
        }
        let mut values = values.into_iter();
        Ok(definitions
            .into_iter()
            .map(|level| if level == most { values.next() } else { None })
            .collect())
    }
}

/// The bytes of a file, for the pages of a column. A file of its own for each reader: clones of one would share their
/// position.
struct Pages {
    file: File,
    length: u64,
}

impl Pages {
    fn open(path: &Path) -> Result<Self, ParquetError> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }

    fn at(&self, start: u64) -> Result<File, ParquetError> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(start))?;
        Ok(file)
    }
}

impl Length for Pages {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Pages {
    type T = BufReader<File>;

    /// Called at the header of a page, whose stated sizes are checked.
    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let mut head = Vec::new();
        self.at(start)?.take(32).read_to_end(&mut head)?;
        if let Some([unpacked, packed]) = page_sizes(&head)
            && unpacked > packed.saturating_mul(MOST_RATIO).saturating_add(1 << 16)
        {
            let text =
                format!("a page of {packed} bytes that states {unpacked} bytes after unpacking");
            return Err(ParquetError::General(text));
        }
        Ok(BufReader::with_capacity(1 << 12, self.at(start)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<bytes::Bytes, ParquetError> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.length) {
            let found = self.length;
            let text = format!("{length} bytes from byte {start} on in a file of {found} bytes");
            return Err(ParquetError::EOF(text));
        }
        let mut bytes = vec![0; length];
        self.at(start)?.read_exact(&mut bytes)?;
        Ok(bytes.into())
    }
}

/// Sizes of a page after and before unpacking: the second and third field of its header, in Thrift's compact protocol.
/// Each of the first three fields is the byte 0x15 (the next field, of 32 bits) and a zigzag number.
fn page_sizes(head: &[u8]) -> Option<[u64; 2]> {
    let mut at = 0;
    let mut fields = [0; 3];
    for field in &mut fields {
        if *head.get(at)? != 0x15 {
            return None;
        }
        at += 1;
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = *head.get(at)?;
            at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 35 {
                return None;
            }
        }
        *field = value >> 1;
    }
    Some([fields[1], fields[2]])
}
