//! What makes a component dear to compile, counted before the compiler begins.
//!
//! wasmtime promises nothing about the time and the memory that compiling takes, and a compilation can't be stopped. Both grow with the number of
//! functions, and faster than that with the size of one function and with the values that live across its blocks: each block gets a parameter for each
//! of them. So each of the three has a limit. (Measured with wasmtime 48 on code made to be dear; what compilers make takes a tenth of it.) What is not WebAssembly at all is left to the compiler, which says so at once.

use wasmparser::{FunctionBody, Operator, Parser, Payload};

use super::verify::LoadError;

/// Functions of all core modules together. Each takes about 80 µs of one core even if it does nothing.
const FUNCTIONS_MAX: usize = 250_000;
/// The body of one function, in bytes. The densest code takes 10 s of one core and 1.4 GB for each MiB. The largest functions of real components that were
/// looked at: 427 KB in one that carries CPython (its relocations), 172 KB in one that carries SpiderMonkey.
const FUNCTION_BYTES_MAX: usize = 1 << 20;
/// The tangle of one function: its blocks and branches, each times the values that may live across it. A million takes about a second of one core
/// and 40 MB. The same two components stay below half a million, and below nine million in all.
const TANGLE_MAX: u64 = 10_000_000;
/// The tangle of all functions together.
const TANGLE_IN_ALL_MAX: u64 = 100_000_000;

/// Looks at every function of a component.
///
/// # Errors
/// [`LoadError`] names the function that is too dear, or says that there are too many.
pub(super) fn check(bytes: &[u8]) -> Result<(), LoadError> {
    let mut count = Count::default();
    for payload in Parser::new(0).parse_all(bytes) {
        // Damaged: the compiler comes no further than this, and knows better what to say.
        let Ok(payload) = payload else { return Ok(()) };
        match payload {
            Payload::ModuleSection { .. } => count.begin_module(),
            Payload::TypeSection(types) => {
                let types = types.into_iter_err_on_gc_types().map_while(Result::ok);
                count.types = types.map(|of| (of.params().len() + of.results().len()) as u64).collect();
            }
            Payload::FunctionSection(functions) => {
                count.declared = functions.into_iter().map_while(Result::ok).collect();
            }
            Payload::CodeSectionEntry(body) => count.function(&body)?,
            _ => {}
        }
    }
    Ok(())
}

/// How far the component has been looked at.
#[derive(Default)]
struct Count {
    /// Core modules begun.
    modules: usize,
    /// Functions of all modules.
    functions: usize,
    /// The tangle of all modules.
    tangle: u64,
    /// Functions of this module whose body was looked at.
    bodies: usize,
    /// Parameters and results of this module's types.
    types: Vec<u64>,
    /// The types of the functions that this module defines.
    declared: Vec<u32>,
}

impl Count {
    fn begin_module(&mut self) {
        *self = Self { modules: self.modules + 1, functions: self.functions, tangle: self.tangle, ..Self::default() };
    }

    fn function(&mut self, body: &FunctionBody<'_>) -> Result<(), LoadError> {
        let (module, function) = (self.modules.saturating_sub(1), self.bodies);
        self.bodies += 1;
        self.functions += 1;
        if self.functions > FUNCTIONS_MAX {
            return Err(LoadError::TooManyFunctions { max: FUNCTIONS_MAX });
        }
        let bytes = body.range().len();
        if bytes > FUNCTION_BYTES_MAX {
            return Err(LoadError::HugeFunction { module, function, bytes, max: FUNCTION_BYTES_MAX });
        }
        // As above: the compiler says what is wrong with a body that can't be read.
        let tangle = self.tangle_of(function, body).unwrap_or(0);
        if tangle > TANGLE_MAX {
            return Err(LoadError::TangledFunction { module, function, tangle, max: TANGLE_MAX });
        }
        self.tangle = self.tangle.saturating_add(tangle);
        if self.tangle > TANGLE_IN_ALL_MAX {
            return Err(LoadError::Tangled { max: TANGLE_IN_ALL_MAX });
        }
        Ok(())
    }

    fn tangle_of(&self, function: usize, body: &FunctionBody<'_>) -> wasmparser::Result<u64> {
        let arity = |of: u32| self.types.get(of as usize).copied().unwrap_or(0);
        let mut locals = self.declared.get(function).map_or(0, |of| arity(*of));
        for group in body.get_locals_reader()? {
            locals += u64::from(group?.0);
        }
        let mut tangle = 0_u64;
        for operator in body.get_operators_reader()? {
            let values = match operator? {
                Operator::Block { blockty } | Operator::Loop { blockty } | Operator::If { blockty } => match blockty {
                    wasmparser::BlockType::FuncType(of) => locals + arity(of),
                    _ => locals,
                },
                Operator::Else | Operator::Br { .. } | Operator::BrIf { .. } => locals,
                Operator::BrTable { targets } => locals + u64::from(targets.len()),
                _ => continue,
            };
            tangle = tangle.saturating_add(values + 1);
        }
        Ok(tangle)
    }
}
