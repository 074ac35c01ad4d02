//! Reads Python's pickle format without running code.
//!
//! A pickle is a program for a small machine. It can name any function of any Python module and call
//! it. Here it builds numbers, texts, containers, descriptions of PyTorch's tensors and, on request,
//! NumPy's arrays. The names of a few other types are known to hold no tensors; their values are
//! dropped. Any other name is an error, before anything is done with it.
//!
//! The values lie in one list and refer to each other by index, so a pickle that refers to a value
//! many times does not copy it. Format: CPython's `Lib/pickletools.py`.

use std::collections::HashMap;
use std::io::{self, Read};

/// Longest pickle, in bytes. Those of checkpoints have about 100 bytes for each tensor.
const LONGEST: u64 = 1 << 26;
/// Most values in a pickle. A byte can make a value, which takes 32 bytes.
const MOST_VALUES: usize = 1 << 18;
/// Most references to values, on the stack and in containers.
const MOST_REFERENCES: usize = 1 << 20;
/// Most dimensions of a tensor. A pickle can repeat a shape in a few bytes, so it is short.
const MOST_DIMENSIONS: usize = 8;
/// Longest key of a storage, or name of a type of elements, in bytes.
const LONGEST_KEY: usize = 32;

/// Index of a value.
pub(crate) type Id = usize;

/// A type of elements: its name in the safetensors format, and its size in bytes.
pub(crate) type Element = (&'static str, usize);

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// `None`, a float, or a value that is dropped.
    Dropped,
    /// A truth value.
    Bool(bool),
    /// A whole number of at most eight bytes.
    Int(i64),
    /// A longer whole number, in little-endian bytes.
    Long(Vec<u8>),
    /// A text.
    Text(Box<str>),
    /// A tuple or list.
    List(Vec<Id>),
    /// Keys and values in the order in which they were set.
    Dict(Vec<(Id, Id)>),
    /// A name that the pickle may call.
    Name(Name),
    /// A storage: key, type of its elements (`None` for bytes), number of elements.
    Storage(Box<(Box<str>, Option<Element>, usize)>),
    /// A tensor.
    Tensor(Box<Tensor>),
    /// Bytes, kept with [`Pickle::read_arrays`] only.
    Bytes(Vec<u8>),
    /// NumPy's type of elements, such as `u1`.
    ArrayElement(Box<str>),
    /// An array of NumPy.
    Array(Box<Array>),
}

/// An array as NumPy pickles it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Array {
    /// NumPy's type of its elements, such as `u1`; empty before the array is filled.
    pub element: Box<str>,
    /// Shape.
    pub shape: Vec<usize>,
    /// Whether the first index varies fastest (Fortran's order).
    pub fortran: bool,
    /// The elements.
    pub bytes: Vec<u8>,
}

/// A tensor as PyTorch rebuilds it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    /// Key of its storage.
    pub storage: Box<str>,
    /// Number of elements of the storage that the pickle states.
    pub storage_len: usize,
    /// Type of its elements.
    pub element: Element,
    /// First element.
    pub offset: usize,
    /// Shape.
    pub shape: Vec<usize>,
    /// Strides, in elements.
    pub stride: Vec<usize>,
}

/// Known names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Name {
    /// A dict, or a type that is like one.
    Dict,
    /// Makes a tensor from storage, offset, shape and strides.
    RebuildTensor,
    /// The same, with the type of the elements, of a storage of bytes.
    RebuildTyped,
    /// Wraps a tensor, which is the first argument.
    RebuildParameter,
    /// Calls the first argument with the third.
    RebuildFromType,
    /// The type of a storage.
    Storage(Option<Element>),
    /// A type of elements.
    Element(Element),
    /// Makes an empty array of NumPy, which BUILD fills.
    NewArray,
    /// Makes an array of NumPy from bytes.
    ArrayFromBytes,
    /// Makes a type of elements of an array.
    ArrayElement,
    /// Makes a value that is dropped.
    Dropped,
}

/// Why a pickle cannot be read.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The system reported an error.
    Io(io::Error),
    /// It names something that is not built.
    Name(String),
    /// It is damaged, or uses what PyTorch does not write.
    Malformed {
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
}

fn malformed<T>(expected: &str, found: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Malformed { expected: expected.into(), found: found.into() })
}

/// The type of elements that PyTorch calls `name`: `float32`, …
fn element(name: &str) -> Option<Element> {
    Some(match name {
        "float64" => ("F64", 8),
        "float32" => ("F32", 4),
        "float16" => ("F16", 2),
        "bfloat16" => ("BF16", 2),
        "int64" => ("I64", 8),
        "int32" => ("I32", 4),
        "int16" => ("I16", 2),
        "int8" => ("I8", 1),
        "uint64" => ("U64", 8),
        "uint32" => ("U32", 4),
        "uint16" => ("U16", 2),
        "uint8" => ("U8", 1),
        "bool" => ("BOOL", 1),
        "complex64" => ("C64", 8),
        "float8_e4m3fn" => ("F8_E4M3", 1),
        "float8_e5m2" => ("F8_E5M2", 1),
        _ => return None,
    })
}

/// The type of a storage that PyTorch calls `name`.
fn storage(name: &str) -> Option<Option<Element>> {
    let of = match name {
        "DoubleStorage" => "float64",
        "FloatStorage" => "float32",
        "HalfStorage" => "float16",
        "BFloat16Storage" => "bfloat16",
        "LongStorage" => "int64",
        "IntStorage" => "int32",
        "ShortStorage" => "int16",
        "CharStorage" => "int8",
        "ByteStorage" => "uint8",
        "BoolStorage" => "bool",
        "ComplexFloatStorage" => "complex64",
        "UntypedStorage" => return Some(None),
        _ => return None,
    };
    Some(element(of))
}

/// Types whose values are dropped, of modules with other types. A value of these is made by
/// attributes, numbers and texts only.
const DROPPED: [(&str, &str); 35] = [
    ("__builtin__", "bytearray"),
    ("__builtin__", "complex"),
    ("__builtin__", "frozenset"),
    ("__builtin__", "object"),
    ("__builtin__", "set"),
    ("__builtin__", "slice"),
    ("_codecs", "encode"),
    ("argparse", "Namespace"),
    ("builtins", "bytearray"),
    ("builtins", "complex"),
    ("builtins", "frozenset"),
    ("builtins", "object"),
    ("builtins", "set"),
    ("builtins", "slice"),
    ("collections", "Counter"),
    ("collections", "deque"),
    ("copy_reg", "_reconstructor"),
    ("copyreg", "_reconstructor"),
    ("datetime", "datetime"),
    ("datetime", "timedelta"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
    ("pathlib._local", "PosixPath"),
    ("torch", "Size"),
    ("torch", "Tensor"),
    ("torch", "device"),
    ("torch.nn.parameter", "Buffer"),
    ("torch.nn.parameter", "Parameter"),
    ("types", "SimpleNamespace"),
];

/// A name that may be used.
fn known(module: &str, name: &str) -> Option<Name> {
    Some(match (module, name) {
        ("collections", "OrderedDict" | "defaultdict") | ("builtins" | "__builtin__", "dict") => {
            Name::Dict
        }
        // Lightning's hyperparameters.
        (
            "lightning_fabric.utilities.data" | "lightning.fabric.utilities.data",
            "AttributeDict",
        )
        | ("pytorch_lightning.utilities.parsing", "AttributeDict") => Name::Dict,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Name::RebuildTensor,
        ("torch._utils", "_rebuild_tensor_v3") => Name::RebuildTyped,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
            Name::RebuildParameter
        }
        ("torch._tensor", "_rebuild_from_type_v2") => Name::RebuildFromType,
        ("torch" | "torch.storage" | "torch.cuda", name) if storage(name).is_some() => {
            Name::Storage(storage(name)?)
        }
        ("torch", name) if element(name).is_some() => Name::Element(element(name)?),
        pair if DROPPED.contains(&pair) => Name::Dropped,
        _ => return None,
    })
}

/// The names of NumPy's arrays, which are dropped otherwise.
fn of_arrays(module: &str, name: &str) -> Option<Name> {
    Some(match (module, name) {
        ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Name::NewArray,
        ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Name::ArrayFromBytes,
        ("numpy", "dtype") => Name::ArrayElement,
        _ => return None,
    })
}

/// The values of a pickle.
#[derive(Debug)]
pub(crate) struct Pickle {
    values: Vec<Value>,
    /// The result.
    pub root: Id,
}

impl Pickle {
    /// Reads one pickle, and no byte after it.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn read(input: impl Read) -> Result<Pickle, Refusal> {
        Self::run(input, LONGEST, false)
    }

    /// The same with bytes and NumPy's arrays, for a pickle of at most `longest` bytes.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn read_arrays(input: impl Read, longest: u64) -> Result<Pickle, Refusal> {
        Self::run(input, longest, true)
    }

    fn run(input: impl Read, longest: u64, arrays: bool) -> Result<Pickle, Refusal> {
        let mut machine = Machine {
            input: input.take(longest),
            longest,
            arrays,
            values: vec![Value::Dropped],
            items: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        let root = machine.run()?;
        Ok(Pickle { values: machine.values, root })
    }

    /// A value.
    pub fn get(&self, id: Id) -> &Value {
        &self.values[id]
    }

    /// Takes an array out.
    pub fn take_array(&mut self, id: Id) -> Option<Array> {
        match &mut self.values[id] {
            Value::Array(array) => Some(std::mem::take(array)),
            _ => None,
        }
    }

    /// The value of a key of a dict; the last, if there are several.
    pub fn entry(&self, dict: Id, key: &str) -> Option<Id> {
        let Value::Dict(pairs) = self.get(dict) else { return None };
        let is = |id: Id| match self.get(id) {
            Value::Text(text) => **text == *key,
            Value::Bytes(bytes) => bytes == key.as_bytes(),
            _ => false,
        };
        pairs.iter().rev().find(|(found, _)| is(*found)).map(|(_, value)| *value)
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.values.iter()
    }

    /// A text.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

struct Machine<R> {
    input: io::Take<R>,
    longest: u64,
    /// Whether bytes and arrays are kept.
    arrays: bool,
    /// The first one stands for all that are dropped.
    values: Vec<Value>,
    /// Number of references in containers.
    items: usize,
    stack: Vec<Id>,
    /// Heights of the stack at the marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<R: Read> Machine<R> {
    fn run(&mut self) -> Result<Id, Refusal> {
        loop {
            let [op] = self.bytes()?;
            if op == b'.' {
                return self.pop();
            }
            self.step(op)?;
        }
    }

    /// One instruction; the letters are those of `pickletools`.
    fn step(&mut self, op: u8) -> Result<(), Refusal> {
        match op {
            // PROTO and FRAME only announce what follows.
            0x80 => self.bytes::<1>().map(drop),
            0x95 => self.bytes::<8>().map(drop),
            b'(' => {
                self.marks.push(self.stack.len());
                self.check_room()
            }
            b'0' => self.pop().map(drop),
            b'1' => self.pop_to_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.push_id(top)
            }
            b'N' => self.push(Value::Dropped),
            0x88 | 0x89 => self.push(Value::Bool(op == 0x88)),
            b'K' => {
                let [n] = self.bytes()?;
                self.push(Value::Int(n.into()))
            }
            b'M' => {
                let n = u16::from_le_bytes(self.bytes()?);
                self.push(Value::Int(n.into()))
            }
            b'J' => {
                let n = i32::from_le_bytes(self.bytes()?);
                self.push(Value::Int(n.into()))
            }
            0x8a => {
                let [n] = self.bytes()?;
                let digits = self.counted(n.into())?;
                self.push(long(digits))
            }
            0x8b => {
                let n = u32::from_le_bytes(self.bytes()?);
                let digits = self.counted(n.into())?;
                self.push(long(digits))
            }
            b'G' => {
                self.bytes::<8>()?;
                self.push(Value::Dropped)
            }
            // Texts. `U` and `T` are Python 2's.
            0x8c | b'U' => {
                let [n] = self.bytes()?;
                self.text(n.into())
            }
            b'X' | b'T' => {
                let n = u32::from_le_bytes(self.bytes()?);
                self.text(n.into())
            }
            0x8d => {
                let n = u64::from_le_bytes(self.bytes()?);
                self.text(n)
            }
            // Bytes are dropped.
            b'C' => {
                let [n] = self.bytes()?;
                self.skip(n.into())
            }
            b'B' => {
                let n = u32::from_le_bytes(self.bytes()?);
                self.skip(n.into())
            }
            0x8e | 0x96 => {
                let n = u64::from_le_bytes(self.bytes()?);
                self.skip(n)
            }
            b']' | b')' => self.push(Value::List(Vec::new())),
            b'l' | b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::List(items))
            }
            0x85..=0x87 => {
                let n = usize::from(op - 0x84);
                if self.stack.len() < self.floor() + n {
                    return malformed("enough values for a tuple", "too few");
                }
                let items = self.stack.split_off(self.stack.len() - n);
                self.push(Value::List(items))
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Dict(Vec::new()))?;
                self.set(items)
            }
            0x8f => self.push(Value::Dropped),
            0x91 => {
                self.pop_to_mark()?;
                self.push(Value::Dropped)
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.append(items)
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![key, value])
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set(items)
            }
            b'q' => {
                let [n] = self.bytes()?;
                self.remember(n.into())
            }
            b'r' => {
                let n = u32::from_le_bytes(self.bytes()?);
                self.remember(n)
            }
            0x94 => self.remember(self.memo.len() as u32),
            b'h' => {
                let [n] = self.bytes()?;
                self.recall(n.into())
            }
            b'j' => {
                let n = u32::from_le_bytes(self.bytes()?);
                self.recall(n)
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.name(&module, &name)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.values[module].clone(), self.values[name].clone()) {
                    (Value::Text(module), Value::Text(name)) => self.name(&module, &name),
                    _ => malformed("the name of a type", "another value"),
                }
            }
            b'R' | 0x81 => {
                let (arguments, called) = (self.pop()?, self.pop()?);
                self.call(called, arguments)
            }
            0x92 => {
                // NEWOBJ_EX also has keyword arguments.
                let (_, arguments, called) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(called, arguments)
            }
            // BUILD sets attributes, which only arrays have here.
            b'b' => {
                let state = self.pop()?;
                let top = self.top()?;
                match self.values[top] {
                    Value::Array(_) => self.fill(top, state),
                    _ => Ok(()),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(storage)
            }
            other => malformed(
                "instructions of pickle protocol 2 or later",
                format!("the byte {other:#04x}"),
            ),
        }
    }

    // The input.

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let mut out = [0; N];
        self.input.read_exact(&mut out).map_err(|error| self.ended(error))?;
        Ok(out)
    }

    fn ended(&self, error: io::Error) -> Refusal {
        match error.kind() {
            io::ErrorKind::UnexpectedEof if self.input.limit() == 0 => Refusal::Malformed {
                expected: format!("a pickle of at most {} bytes", self.longest),
                found: "a longer one".into(),
            },
            io::ErrorKind::UnexpectedEof => Refusal::Malformed {
                expected: "a whole pickle".into(),
                found: "one that is cut short".into(),
            },
            _ => Refusal::Io(error),
        }
    }

    /// As many bytes as stated. The memory grows with the bytes that are there.
    fn counted(&mut self, n: u64) -> Result<Vec<u8>, Refusal> {
        let mut out = Vec::new();
        (&mut self.input).take(n).read_to_end(&mut out).map_err(Refusal::Io)?;
        match out.len() as u64 == n {
            true => Ok(out),
            false => Err(self.ended(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn text(&mut self, n: u64) -> Result<(), Refusal> {
        let bytes = self.counted(n)?;
        // Python 2 has no type of its own for bytes.
        if self.arrays && std::str::from_utf8(&bytes).is_err() {
            return self.push(Value::Bytes(bytes));
        }
        self.push(Value::Text(String::from_utf8_lossy(&bytes).into()))
    }

    fn skip(&mut self, n: u64) -> Result<(), Refusal> {
        if self.arrays {
            let bytes = self.counted(n)?;
            return self.push(Value::Bytes(bytes));
        }
        let skipped = io::copy(&mut (&mut self.input).take(n), &mut io::sink());
        match skipped.map_err(Refusal::Io)? == n {
            true => self.push(Value::Dropped),
            false => Err(self.ended(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn line(&mut self) -> Result<String, Refusal> {
        let mut out = Vec::new();
        loop {
            match self.bytes()? {
                [b'\n'] => return Ok(String::from_utf8_lossy(&out).into()),
                [byte] => out.push(byte),
            }
        }
    }

    // The stack.

    fn check_room(&self) -> Result<(), Refusal> {
        let references = [self.stack.len(), self.marks.len(), self.memo.len(), self.items];
        let most = match self.values.len() > MOST_VALUES {
            true => MOST_VALUES,
            false if references.iter().any(|&n| n > MOST_REFERENCES) => MOST_REFERENCES,
            false => return Ok(()),
        };
        malformed(&format!("at most {most} values"), "more")
    }

    fn push_id(&mut self, id: Id) -> Result<(), Refusal> {
        self.stack.push(id);
        self.check_room()
    }

    fn push(&mut self, value: Value) -> Result<(), Refusal> {
        if value == Value::Dropped {
            return self.push_id(0);
        }
        if let Value::List(items) = &value {
            self.items += items.len();
        }
        self.values.push(value);
        self.push_id(self.values.len() - 1)
    }

    /// Height of the stack at the last mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id, Refusal> {
        match self.stack.last().filter(|_| self.stack.len() > self.floor()) {
            Some(&id) => Ok(id),
            None => malformed("a value on the stack", "none"),
        }
    }

    fn pop(&mut self) -> Result<Id, Refusal> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, Refusal> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => malformed("a mark on the stack", "none"),
        }
    }

    fn remember(&mut self, key: u32) -> Result<(), Refusal> {
        let top = self.top()?;
        self.memo.insert(key, top);
        self.check_room()
    }

    fn recall(&mut self, key: u32) -> Result<(), Refusal> {
        match self.memo.get(&key) {
            Some(&id) => self.push_id(id),
            None => malformed("a value that was stored before", format!("number {key}")),
        }
    }

    // The values.

    fn append(&mut self, mut items: Vec<Id>) -> Result<(), Refusal> {
        let top = self.top()?;
        self.items += items.len();
        match &mut self.values[top] {
            Value::List(list) => list.append(&mut items),
            Value::Dropped => {}
            _ => return malformed("a list", "another value"),
        }
        self.check_room()
    }

    fn set(&mut self, items: Vec<Id>) -> Result<(), Refusal> {
        let top = self.top()?;
        self.items += items.len();
        let (pairs, []) = items.as_chunks::<2>() else {
            return malformed("a value for each key", "a key alone");
        };
        match &mut self.values[top] {
            Value::Dict(dict) => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            Value::Dropped => {}
            _ => return malformed("a dict", "another value"),
        }
        self.check_room()
    }

    fn name(&mut self, module: &str, name: &str) -> Result<(), Refusal> {
        let array = of_arrays(module, name).filter(|_| self.arrays);
        match array.or_else(|| known(module, name)) {
            Some(known) => self.push(Value::Name(known)),
            None => Err(Refusal::Name(format!("{module}.{name}"))),
        }
    }

    fn list(&self, id: Id) -> Result<&[Id], Refusal> {
        match &self.values[id] {
            Value::List(list) => Ok(list),
            _ => malformed("a tuple of arguments", "another value"),
        }
    }

    /// Calls a known name.
    fn call(&mut self, called: Id, arguments: Id) -> Result<(), Refusal> {
        let Value::Name(name) = self.values[called] else {
            return malformed("the name of a type", "another value");
        };
        let value = match name {
            Name::ArrayFromBytes => self.array_from_bytes(arguments)?,
            name => self.result(name, arguments)?,
        };
        self.push(value)
    }

    /// Fills an array from `(version, shape, type, order, bytes)`.
    fn fill(&mut self, array: Id, state: Id) -> Result<(), Refusal> {
        let &[_, shape, element, fortran, bytes] = self.list(state)? else {
            return malformed("the state of an array", "another value");
        };
        let fortran = match self.values[fortran] {
            Value::Bool(fortran) => fortran,
            Value::Int(fortran) => fortran != 0,
            _ => return malformed("the order of an array", "another value"),
        };
        self.values[array] = self.array(shape, element, fortran, bytes)?;
        Ok(())
    }

    /// `(bytes, type, shape, order)`.
    fn array_from_bytes(&mut self, arguments: Id) -> Result<Value, Refusal> {
        let &[bytes, element, shape, order] = self.list(arguments)? else {
            return malformed("bytes, type, shape and order of an array", "other values");
        };
        let fortran = match &self.values[order] {
            Value::Text(order) => &**order == "F",
            _ => return malformed("the order of an array", "another value"),
        };
        self.array(shape, element, fortran, bytes)
    }

    /// Moves the bytes into an array.
    fn array(
        &mut self,
        shape: Id,
        element: Id,
        fortran: bool,
        bytes: Id,
    ) -> Result<Value, Refusal> {
        let shape = self.sizes(shape);
        let (Some(shape), Value::ArrayElement(element)) = (shape, &self.values[element]) else {
            return malformed("shape and type of an array", "other values");
        };
        let element = element.clone();
        let bytes = match &mut self.values[bytes] {
            Value::Bytes(bytes) => std::mem::take(bytes),
            Value::Text(text) => std::mem::take(text).into_string().into_bytes(),
            _ => return malformed("the bytes of an array", "another value"),
        };
        Ok(Value::Array(Box::new(Array { element, shape, fortran, bytes })))
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        let size = |&id: &Id| match self.values[id] {
            Value::Int(n) => usize::try_from(n).ok(),
            _ => None,
        };
        match &self.values[id] {
            Value::List(list) if list.len() <= MOST_DIMENSIONS => list.iter().map(size).collect(),
            _ => None,
        }
    }

    fn result(&self, name: Name, arguments: Id) -> Result<Value, Refusal> {
        let list = self.list(arguments)?;
        match (name, list) {
            // Python 2 passes the pairs of an `OrderedDict` as an argument.
            (Name::Dict, list)
                if list.len() <= 2 && list.iter().all(|&id| self.values[id] == Value::Dropped) =>
            {
                Ok(Value::Dict(Vec::new()))
            }
            (Name::Dropped, _) => Ok(Value::Dropped),
            (Name::NewArray, _) => Ok(Value::Array(Box::default())),
            (Name::ArrayElement, &[element, ..]) => match &self.values[element] {
                Value::Text(element) if element.len() <= LONGEST_KEY => {
                    Ok(Value::ArrayElement(element.clone()))
                }
                _ => malformed("the name of a type of elements", "another value"),
            },
            (Name::RebuildTensor, &[storage, offset, shape, stride, ..]) => {
                self.tensor([storage, offset, shape, stride], None)
            }
            (Name::RebuildTyped, &[storage, offset, shape, stride, _, _, element, ..]) => {
                self.tensor([storage, offset, shape, stride], Some(element))
            }
            (Name::RebuildParameter, &[tensor, ..]) => match &self.values[tensor] {
                tensor @ Value::Tensor(_) => Ok(tensor.clone()),
                _ => malformed("a tensor in a parameter", "another value"),
            },
            (Name::RebuildFromType, &[function, _, arguments, ..]) => {
                match self.values[function] {
                    // A function that wraps itself could go on for ever.
                    Value::Name(Name::RebuildFromType) => {
                        malformed("a function that rebuilds a tensor", "one that wraps itself")
                    }
                    Value::Name(name) => self.result(name, arguments),
                    _ => malformed("a function that rebuilds a tensor", "another value"),
                }
            }
            _ => {
                let found = format!("one with {} other arguments", list.len());
                malformed("a call as PyTorch writes it", found)
            }
        }
    }

    fn tensor(&self, parts: [Id; 4], element: Option<Id>) -> Result<Value, Refusal> {
        let [storage, offset, shape, stride] = parts;
        let size = |id: Id| match self.values[id] {
            Value::Int(n) => usize::try_from(n).ok(),
            _ => None,
        };
        let (Value::Storage(storage), Some(offset), Some(shape), Some(stride)) =
            (&self.values[storage], size(offset), self.sizes(shape), self.sizes(stride))
        else {
            return malformed("storage, offset, shape and strides of a tensor", "other values");
        };
        let (key, own, len) = storage.as_ref();
        let stated = match element.map(|id| &self.values[id]) {
            Some(Value::Name(Name::Element(element))) => Some(*element),
            _ => None,
        };
        let Some(element) = stated.or(*own) else {
            return malformed("the type of a tensor's elements", "a storage of bytes");
        };
        Ok(Value::Tensor(Box::new(Tensor {
            storage: key.clone(),
            storage_len: *len,
            element,
            offset,
            shape,
            stride,
        })))
    }

    /// The reference of a storage: `("storage", type, key, device, elements)`. The first versions of
    /// PyTorch add a view of the storage, or `None`.
    fn storage(&self, id: Id) -> Result<Value, Refusal> {
        let found = match self.list(id)? {
            [kind, class, key, _, len, rest @ ..] => {
                let whole = matches!(rest, [] | [_])
                    && rest.iter().all(|&view| self.values[view] == Value::Dropped);
                match [kind, class, key, len].map(|&id| &self.values[id]) {
                    [
                        Value::Text(kind),
                        Value::Name(Name::Storage(element)),
                        key,
                        Value::Int(len),
                    ] if &**kind == "storage" && whole => {
                        let key = match key {
                            Value::Text(key) if key.len() <= LONGEST_KEY => Some(key.clone()),
                            Value::Int(key) => Some(key.to_string().into()),
                            _ => None,
                        };
                        let len = usize::try_from(*len).ok();
                        key.zip(len).map(|(key, len)| (key, *element, len))
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        match found {
            Some(found) => Ok(Value::Storage(Box::new(found))),
            None => malformed("the reference of a storage", "another value"),
        }
    }
}

/// A whole number, in two's complement.
fn long(digits: Vec<u8>) -> Value {
    if digits.len() > 8 {
        return Value::Long(digits);
    }
    let fill = if digits.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
    let mut bytes = [fill; 8];
    bytes[..digits.len()].copy_from_slice(&digits);
    Value::Int(i64::from_le_bytes(bytes))
}
