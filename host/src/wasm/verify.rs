//! What a component must be before it serves: a component, of the right world, that imports only what its consumer was granted.

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::wasi;

/// Why a component was not loaded. Each says what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// No bytes.
    #[error("the component file is empty; build the plug-in again")]
    Empty,
    /// More bytes than [`super::Settings::component_bytes_max`].
    #[error(
        "the component has {bytes} bytes, more than the {max} that the host loads; build it for release and strip it, or raise the limit"
    )]
    TooLarge {
        /// What it has.
        bytes: usize,
        /// What it may have.
        max: usize,
    },
    /// WebAssembly in text form.
    #[error("this is WebAssembly in text form; turn it into a component with `wasm-tools parse`")]
    Text,
    /// Not WebAssembly at all.
    #[error(
        "this is not WebAssembly: it doesn't begin with the bytes of a component; give the path of the built `.wasm` file"
    )]
    NotWasm,
    /// A core module.
    #[error(
        "this is a core WebAssembly module, not a component; build for the target wasm32-wasip2, or run `wasm-tools component new` on it"
    )]
    CoreModule,
    /// Damaged, or past a limit of the compiler or the pool.
    #[error("the component can't be compiled: {problem}; if the file is whole, build it again with current tools")]
    DoesNotCompile {
        /// In wasmtime's words.
        problem: String,
    },
    /// One function is so large that compiling it would take very long.
    #[error(
        "function {function} of core module {module} has {bytes} bytes, more than the {max} that the host compiles; split it, or build with less inlining"
    )]
    HugeFunction {
        /// Which core module of the component, from 0, in the order of the file.
        module: usize,
        /// Which of the functions that the module defines, from 0.
        function: usize,
        /// What it has.
        bytes: usize,
        /// What it may have.
        max: usize,
    },
    /// One function is so tangled that compiling it would take very long, and very much memory.
    #[error(
        "function {function} of core module {module} is too tangled: its blocks times the values that live across them are {tangle}, more than the \
         {max} that the host compiles; split it, or build with less inlining"
    )]
    TangledFunction {
        /// Which core module of the component, from 0, in the order of the file.
        module: usize,
        /// Which of the functions that the module defines, from 0.
        function: usize,
        /// Blocks and branches, each times the parameters and locals of the function.
        tangle: u64,
        /// What that may be.
        max: u64,
    },
    /// All functions together are so tangled that compiling them would take very long.
    #[error(
        "the component's functions are too tangled: their blocks times the values that live across them are more than the {max} that the host \
         compiles; build it for release, with what is not used removed"
    )]
    Tangled {
        /// What that may be, all core modules together.
        max: u64,
    },
    /// So many functions that compiling them would take very long.
    #[error(
        "the component has more than {max} functions, which is what the host compiles; build it for release, with what is not used removed"
    )]
    TooManyFunctions {
        /// What it may have, all core modules together.
        max: usize,
    },
    /// It doesn't export what a plug-in must.
    #[error(
        "the component is not a plug-in: {problem}; it has to export `{HANDLER}` of the world `pelton:consumer/consumer`, and exports {exports}"
    )]
    WrongWorld {
        /// In wasmtime's words.
        problem: String,
        /// What it does export.
        exports: String,
    },
    /// It imports what no plug-in can have.
    #[error(
        "the component imports `{import}`, which this host doesn't have; remove it, or build against the contract of this host's version"
    )]
    UnknownImport {
        /// The import.
        import: String,
    },
    /// It imports something of a known interface that is of another type here.
    #[error(
        "the component's imports don't fit this host: {problem}; build it against the contract of this host's version"
    )]
    ImportMismatch {
        /// In wasmtime's words.
        problem: String,
    },
    /// It imports what its consumer was not granted.
    #[error("the component imports `{import}`, which this consumer was not granted: {remedy}")]
    NotGranted {
        /// The import.
        import: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Its trial instance passes a limit other than time: it needs more memory to begin with than an attempt may have.
    #[error(
        "a fresh instance passes a limit of this consumer: {problem}; raise limits.memory_bytes, or link the plug-in with less initial memory"
    )]
    TrialLimit {
        /// The limit.
        problem: String,
    },
    /// It traps while it is instantiated.
    #[error(
        "a trial instance failed before any message: {reason}; whatever runs when the plug-in is instantiated must end well"
    )]
    TrialTrap {
        /// What trapped, and where.
        reason: String,
    },
    /// It doesn't end its instantiation.
    #[error(
        "a trial instance failed before any message: it ran past {limit_ms} ms; whatever runs when the plug-in is instantiated must end within that time"
    )]
    TrialTimeout {
        /// The time that a trial instance has, in milliseconds.
        limit_ms: u64,
    },
}

impl LoadError {
    /// The stable word for this kind of refusal, in logs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLarge { .. } => "too-large",
            Self::Text => "text",
            Self::NotWasm => "not-wasm",
            Self::CoreModule => "core-module",
            Self::DoesNotCompile { .. } => "does-not-compile",
            Self::HugeFunction { .. } => "huge-function",
            Self::TangledFunction { .. } => "tangled-function",
            Self::Tangled { .. } => "tangled",
            Self::TooManyFunctions { .. } => "too-many-functions",
            Self::WrongWorld { .. } => "wrong-world",
            Self::UnknownImport { .. } => "unknown-import",
            Self::ImportMismatch { .. } => "import-mismatch",
            Self::NotGranted { .. } => "not-granted",
            Self::TrialLimit { .. } => "trial-limit",
            Self::TrialTrap { .. } => "trial-trap",
            Self::TrialTimeout { .. } => "trial-timeout",
        }
    }

    /// Whether the same bytes may be accepted at another try: a trial instance may fail for want of time, on a machine that is busy.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::TrialTimeout { .. })
    }
}

/// What every plug-in exports.
pub(super) const HANDLER: &str = "pelton:consumer/handler@0.1.0";
/// The contract's package.
const CONTRACT: &str = "pelton:consumer";
/// The contract's interfaces that a plug-in may import.
const INTERFACES: [&str; 6] = ["types", "state", "idempotency", "outbox", "context", "log"];
/// Exports that an error names at most.
const EXPORTS_NAMED_MAX: usize = 8;

/// Looks at the first bytes.
pub(super) fn check_bytes(bytes: &[u8], bytes_max: usize) -> Result<(), LoadError> {
    const MAGIC: &[u8] = b"\0asm";
    const CORE: &[u8] = b"\0asm\x01\0\0\0";
    if bytes.is_empty() {
        return Err(LoadError::Empty);
    }
    if bytes.len() > bytes_max {
        return Err(LoadError::TooLarge { bytes: bytes.len(), max: bytes_max });
    }
    if bytes.starts_with(CORE) {
        return Err(LoadError::CoreModule);
    }
    if !bytes.starts_with(MAGIC) {
        let text = bytes.trim_ascii_start();
        return Err(if text.starts_with(b"(") || text.starts_with(b";;") {
            LoadError::Text
        } else {
            LoadError::NotWasm
        });
    }
    Ok(())
}

/// Looks at every import: known, and granted?
pub(super) fn check_imports(
    engine: &Engine,
    component: &Component,
    may_emit: bool,
    keyed_state: bool,
) -> Result<(), LoadError> {
    for (import, _) in component.component_type().imports(engine) {
        check_import(import, may_emit, keyed_state)?;
    }
    Ok(())
}

fn check_import(import: &str, may_emit: bool, keyed_state: bool) -> Result<(), LoadError> {
    let unknown = || LoadError::UnknownImport { import: import.into() };
    let not_granted = |remedy| Err(LoadError::NotGranted { import: import.into(), remedy });
    let unversioned = import.split('@').next().unwrap_or(import);
    let (package, interface) = unversioned.split_once('/').ok_or_else(unknown)?;
    if wasi::PACKAGES.contains(&package) {
        return Ok(());
    }
    if package.starts_with("wasi:") {
        return not_granted(
            "a plug-in reaches neither network nor files; use `state` and `outbox`, and remove the import",
        );
    }
    if package != CONTRACT || !INTERFACES.contains(&interface) {
        return Err(unknown());
    }
    match interface {
        "outbox" if !may_emit => not_granted("name the subjects it may emit to in `grants.emit`"),
        "state" | "idempotency" if !keyed_state => {
            not_granted("its messages have no ordering key to scope it to; set `key` or `state.scope = \"consumer\"`")
        }
        _ => Ok(()),
    }
}

/// The error for a component without a usable handler.
pub(super) fn wrong_world(engine: &Engine, component: &Component, error: &wasmtime::Error) -> LoadError {
    let names: Vec<String> = component
        .component_type()
        .exports(engine)
        .filter(|(_, export)| {
            matches!(export.ty, ComponentItem::ComponentInstance(_) | ComponentItem::ComponentFunc(_))
        })
        .take(EXPORTS_NAMED_MAX)
        .map(|(name, _)| format!("`{name}`"))
        .collect();
    let exports = if names.is_empty() { "nothing".into() } else { names.join(", ") };
    LoadError::WrongWorld { problem: super::ended::chain(error), exports }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_known_and_granted_or_refused_by_name() {
        for good in ["wasi:io/streams@0.2.6", "pelton:consumer/types@0.1.0", "pelton:consumer/outbox@0.1.0"] {
            assert_eq!(check_import(good, true, true), Ok(()), "{good}");
        }
        for unknown in ["run", "pelton:consumer/stat@0.1.0", "pelton:other/state@0.1.0", "acme:db/sql"] {
            assert!(matches!(check_import(unknown, true, true), Err(LoadError::UnknownImport { .. })), "{unknown}");
        }
        for denied in ["wasi:sockets/tcp@0.2.0", "wasi:http/outgoing-handler@0.2.0", "wasi:keyvalue/store"] {
            assert!(matches!(check_import(denied, true, true), Err(LoadError::NotGranted { .. })), "{denied}");
        }
    }
}
