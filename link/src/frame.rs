//! Messages on QUIC streams, each bounded before anything is allocated for it.

use crate::error::FrameError;
use quinn::{ReadExactError, RecvStream, SendStream, WriteError};
use wire::batch::{BATCH_HEADER_BYTES, BatchHeader};
use wire::control::{Control, FRAME_HEADER_BYTES, FrameHeader};
use wire::{JoinReply, JoinRequest};

/// Largest join request or reply, in bytes.
const JOIN_BYTES_MAX: usize = 1024;

/// Reads one message of the control stream; [`FrameError::Ended`] when the peer has finished it.
///
/// Not cancel-safe: a reader that is dropped inside a message has lost its place. Give it a task.
pub async fn read_control(stream: &mut RecvStream) -> Result<Control, FrameError> {
    let mut header = [0; FRAME_HEADER_BYTES];
    exact(stream, &mut header, FrameError::Ended).await?;
    let header = FrameHeader::parse(&header)?;
    let mut body = vec![0; header.body_bytes as usize];
    exact(stream, &mut body, FrameError::Truncated).await?;
    Ok(Control::parse(header.code, &body)?)
}

/// Writes one message to the control stream.
pub async fn write_control(stream: &mut SendStream, message: &Control) -> Result<(), FrameError> {
    Ok(stream.write_all(&message.to_frame()).await?)
}

/// Reads the header of a batch: the first bytes of a unidirectional stream.
pub async fn read_batch_header(stream: &mut RecvStream) -> Result<BatchHeader, FrameError> {
    let mut header = [0; BATCH_HEADER_BYTES];
    exact(stream, &mut header, FrameError::Ended).await?;
    Ok(BatchHeader::parse(&header)?)
}

/// Reads the records behind a batch header into `body`, cleared first; nothing may follow them.
pub async fn read_batch_body(
    stream: &mut RecvStream,
    header: &BatchHeader,
    body: &mut Vec<u8>,
) -> Result<(), FrameError> {
    body.clear();
    body.resize(header.bytes as usize, 0);
    exact(stream, body, FrameError::Truncated).await?;
    match stream.read(&mut [0]).await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(FrameError::Trailing),
        Err(error) => Err(error.into()),
    }
}

/// Reads the only message a joining source sends.
pub async fn read_join_request(stream: &mut RecvStream) -> Result<JoinRequest, FrameError> {
    Ok(JoinRequest::parse(&whole(stream).await?)?)
}

/// Writes the only message a joining source sends and ends the stream.
pub async fn write_join_request(
    stream: &mut SendStream,
    request: &JoinRequest,
) -> Result<(), FrameError> {
    last(stream, &request.to_bytes()).await
}

/// Reads the receiver's answer to a join request.
pub async fn read_join_reply(stream: &mut RecvStream) -> Result<JoinReply, FrameError> {
    Ok(JoinReply::parse(&whole(stream).await?)?)
}

/// Writes the answer to a join request, ends the stream and waits until it has arrived.
pub async fn write_join_reply(
    stream: &mut SendStream,
    reply: &JoinReply,
) -> Result<(), FrameError> {
    last(stream, &reply.to_bytes()).await?;
    match stream.stopped().await {
        Ok(_) => Ok(()),
        Err(quinn::StoppedError::ConnectionLost(error)) => Err(FrameError::Lost(error)),
        Err(quinn::StoppedError::ZeroRttRejected) => Err(FrameError::Ended),
    }
}

async fn last(stream: &mut SendStream, bytes: &[u8]) -> Result<(), FrameError> {
    stream.write_all(bytes).await?;
    stream.finish().map_err(|_| FrameError::Ended)
}

async fn whole(stream: &mut RecvStream) -> Result<Vec<u8>, FrameError> {
    match stream.read_to_end(JOIN_BYTES_MAX).await {
        Ok(bytes) => Ok(bytes),
        Err(quinn::ReadToEndError::Read(error)) => Err(error.into()),
        Err(quinn::ReadToEndError::TooLong) => Err(FrameError::Trailing),
    }
}

/// Fills `out`; a stream that ends before its first byte is `ended`, later it is truncated.
async fn exact(
    stream: &mut RecvStream,
    out: &mut [u8],
    ended: FrameError,
) -> Result<(), FrameError> {
    match stream.read_exact(out).await {
        Ok(()) => Ok(()),
        Err(ReadExactError::FinishedEarly(0)) => Err(ended),
        Err(ReadExactError::FinishedEarly(_)) => Err(FrameError::Truncated),
        Err(ReadExactError::ReadError(error)) => Err(error.into()),
    }
}

impl From<quinn::ReadError> for FrameError {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::Reset(code) => Self::Reset(code.into_inner()),
            quinn::ReadError::ConnectionLost(error) => Self::Lost(error),
            quinn::ReadError::ClosedStream
            | quinn::ReadError::IllegalOrderedRead
            | quinn::ReadError::ZeroRttRejected => Self::Ended,
        }
    }
}

impl From<WriteError> for FrameError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::Reset(code.into_inner()),
            WriteError::ConnectionLost(error) => Self::Lost(error),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::Ended,
        }
    }
}
