//! Bytes of peers: what is understood is understood one way, and written as it was read.

use bytes::Bytes;
use wire::control::{Control, FRAME_HEADER_BYTES, FrameHeader};
use wire::journal::{
    Bookmark, EntryHeader, Epoch, Folded, GroupHeader, JOURNAL_HEADER_BYTES, Segments, StreamClose,
    StreamLost, StreamOpen,
};
use wire::{BatchHeader, JoinReply, JoinRequest, Member, RecordHeader, SettleMark, Token};

/// A frame of the control stream: header and body.
pub fn control_frame(data: &[u8]) {
    let Some((header, body)) = data.split_first_chunk::<FRAME_HEADER_BYTES>() else {
        return;
    };
    let Ok(header) = FrameHeader::parse(header) else {
        return;
    };
    let body = &body[..body.len().min(header.body_bytes as usize)];
    let Ok(control) = Control::parse(header.code, body) else {
        return;
    };
    let frame = control.to_frame();
    assert_eq!(
        &frame[FRAME_HEADER_BYTES..],
        body,
        "read and written differ"
    );
}

/// What a source says to join, and what it is told; the token an operator pastes.
pub fn join(data: &[u8]) {
    if let Ok(request) = JoinRequest::parse(data) {
        assert_eq!(request.to_bytes(), data);
    }
    if let Ok(reply) = JoinReply::parse(data) {
        assert_eq!(reply.to_bytes(), data);
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(token) = text.parse::<Token>()
    {
        let again: Token = token.to_string().parse().expect("what we print is read");
        assert_eq!(again.to_string(), token.to_string());
    }
}

/// A batch: its header and its records, each with its payload.
pub fn record_batch(data: &[u8]) {
    let Some((header, body)) = data.split_first_chunk() else {
        return;
    };
    let Ok(mut header) = BatchHeader::parse(header) else {
        return;
    };
    // Any number of records of any length, whatever the header's bytes say of the body.
    header.bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let Ok(records) = receiver::session::split(&header, Bytes::copy_from_slice(body)) else {
        return;
    };
    for (record, payload) in records {
        assert_eq!(
            RecordHeader::parse(&record.to_bytes()).as_ref(),
            Ok(&record)
        );
        assert_eq!(payload.len(), record.payload_bytes as usize);
        assert!(
            record.verify(&payload).is_ok(),
            "an unverified record was taken"
        );
    }
}

/// What lies in an entry of the journal; the first byte chooses as what it is read.
pub fn journal_body(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else {
        return;
    };
    match kind % 11 {
        0 => same(StreamOpen::parse(body).map(|it| it.to_bytes()), body),
        1 => same(StreamClose::parse(body).map(StreamClose::to_bytes), body),
        2 => same(StreamLost::parse(body).map(|it| it.to_bytes()), body),
        3 => same(Segments::parse(body).map(|it| it.to_bytes()), body),
        4 => same(Epoch::parse(body).map(|it| it.to_bytes()), body),
        5 => same(Bookmark::parse(body).map(|it| it.to_bytes()), body),
        6 => same(Folded::parse(body).map(|it| it.to_bytes()), body),
        7 => same(SettleMark::parse(body).map(|it| it.to_bytes()), body),
        8 => same(Member::parse(body).map(|it| it.to_bytes()), body),
        9 => header(body, |bytes| {
            GroupHeader::parse(bytes).map(|it| it.to_bytes())
        }),
        _ => header(body, |bytes| {
            EntryHeader::parse(bytes).map(|it| it.to_bytes())
        }),
    }
}

fn same<E>(written: Result<Vec<u8>, E>, read: &[u8]) {
    if let Ok(written) = written {
        assert_eq!(written, read, "read and written differ");
    }
}

type Header = [u8; JOURNAL_HEADER_BYTES];

fn header<E>(body: &[u8], again: impl Fn(&Header) -> Result<Header, E>) {
    if let Some((header, _)) = body.split_first_chunk::<JOURNAL_HEADER_BYTES>()
        && let Ok(written) = again(header)
    {
        assert_eq!(&written, header, "read and written differ");
    }
}
