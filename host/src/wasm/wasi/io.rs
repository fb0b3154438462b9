//! `wasi:io`: three streams and two pollables, none of which ever blocks. All of one number are the same, so that no table is needed.
//!
//! The streams are those of `wasi:cli`. A pollable is ready or never will be within the attempt; waiting for the latter would hold an executor
//! thread, so it ends the attempt and says what to do instead.

use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sync::io::{error, poll, streams};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, IoError, StreamError, StreamResult};

use crate::wasm::attempt::Attempt;
use crate::wasm::ended::Halt;
use crate::wasm::lines::Stream;

/// The number of stdin, an input stream that is at its end.
pub(super) const STDIN: u32 = 0;
/// The number of stdout.
pub(super) const STDOUT: u32 = 1;
/// The number of stderr.
pub(super) const STDERR: u32 = 2;
/// The number of a pollable that is ready.
pub(super) const READY: u32 = 0;
/// The number of a pollable whose time would come later.
pub(super) const LATER: u32 = 1;
/// Bytes that a stream takes at a time.
const WRITE_BYTES_MAX: u64 = 64 << 10;

fn number(pollable: &Resource<DynPollable>) -> u32 {
    pollable.rep()
}

impl error::Host for Attempt {}

impl error::HostError for Attempt {
    fn to_debug_string(&mut self, _: Resource<IoError>) -> wasmtime::Result<String> {
        Ok(String::new())
    }

    fn drop(&mut self, _: Resource<IoError>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl poll::Host for Attempt {
    fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        let ready = (0..).zip(&pollables).filter(|(_, pollable)| number(pollable) == READY);
        let ready: Vec<u32> = ready.map(|(index, _)| index).collect();
        if ready.is_empty() { Err(Halt::Sleep.into()) } else { Ok(ready) }
    }
}

impl poll::HostPollable for Attempt {
    fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        Ok(number(&pollable) == READY)
    }

    fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        if number(&pollable) == READY { Ok(()) } else { Err(Halt::Sleep.into()) }
    }

    fn drop(&mut self, _: Resource<DynPollable>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl streams::Host for Attempt {
    fn convert_stream_error(&mut self, error: StreamError) -> wasmtime::Result<streams::StreamError> {
        match error {
            StreamError::Closed => Ok(streams::StreamError::Closed),
            StreamError::LastOperationFailed(error) | StreamError::Trap(error) => Err(error),
        }
    }
}

impl streams::HostInputStream for Attempt {
    fn read(&mut self, _: Resource<DynInputStream>, _: u64) -> StreamResult<Vec<u8>> {
        Err(StreamError::Closed)
    }

    fn blocking_read(&mut self, _: Resource<DynInputStream>, _: u64) -> StreamResult<Vec<u8>> {
        Err(StreamError::Closed)
    }

    fn skip(&mut self, _: Resource<DynInputStream>, _: u64) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }

    fn blocking_skip(&mut self, _: Resource<DynInputStream>, _: u64) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }

    fn subscribe(&mut self, _: Resource<DynInputStream>) -> wasmtime::Result<Resource<DynPollable>> {
        Ok(Resource::new_own(READY))
    }

    fn drop(&mut self, _: Resource<DynInputStream>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl streams::HostOutputStream for Attempt {
    fn check_write(&mut self, _: Resource<DynOutputStream>) -> StreamResult<u64> {
        Ok(WRITE_BYTES_MAX)
    }

    fn write(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        let stream = if stream.rep() == STDERR { Stream::Stderr } else { Stream::Stdout };
        self.write_stream(stream, &bytes);
        Ok(())
    }

    fn blocking_write_and_flush(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        streams::HostOutputStream::write(self, stream, bytes)
    }

    fn flush(&mut self, _: Resource<DynOutputStream>) -> StreamResult<()> {
        Ok(())
    }

    fn blocking_flush(&mut self, _: Resource<DynOutputStream>) -> StreamResult<()> {
        Ok(())
    }

    fn subscribe(&mut self, _: Resource<DynOutputStream>) -> wasmtime::Result<Resource<DynPollable>> {
        Ok(Resource::new_own(READY))
    }

    fn write_zeroes(&mut self, _: Resource<DynOutputStream>, _: u64) -> StreamResult<()> {
        Ok(())
    }

    fn blocking_write_zeroes_and_flush(&mut self, _: Resource<DynOutputStream>, _: u64) -> StreamResult<()> {
        Ok(())
    }

    fn splice(&mut self, _: Resource<DynOutputStream>, _: Resource<DynInputStream>, _: u64) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }

    fn blocking_splice(
        &mut self,
        _: Resource<DynOutputStream>,
        _: Resource<DynInputStream>,
        _: u64,
    ) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }

    fn drop(&mut self, _: Resource<DynOutputStream>) -> wasmtime::Result<()> {
        Ok(())
    }
}
