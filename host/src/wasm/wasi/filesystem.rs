//! `wasi:filesystem`: no directory is open, so that no file can be reached. The types are linked for the guests whose libraries name them.

use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtx, WasiFilesystemCtxView};
use wasmtime_wasi::p2::bindings::filesystem::preopens;

use crate::wasm::attempt::Attempt;

/// A file system with nothing in it.
#[derive(Default)]
pub(super) struct Files {
    ctx: WasiFilesystemCtx,
    table: ResourceTable,
}

/// The view that the types' functions work on. They can't be called without a descriptor, and a guest can't get one.
pub(super) fn view(attempt: &mut Attempt) -> WasiFilesystemCtxView<'_> {
    let files = attempt.wasi.files.get_or_insert_default();
    WasiFilesystemCtxView { ctx: &mut files.ctx, table: &mut files.table }
}

impl preopens::Host for Attempt {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        Ok(Vec::new())
    }
}
