use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { copy_data: 64, other: 32, kept: 24 };

/// A message as bytes: tag, length, body.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend((body.len() as u32 + 4).to_be_bytes());
    out.extend(body);
    out
}

/// What was handed out, owned.
#[derive(Clone, Debug, PartialEq)]
struct Taken {
    tag: u8,
    body: Vec<u8>,
    len: usize,
    truncated: bool,
}

fn take_all(frames: &mut Frames, taken: &mut Vec<Taken>) -> Result<(), FrameError> {
    while let Some(Frame { tag, body, len, truncated }) = frames.next()? {
        taken.push(Taken { tag, body: body.to_vec(), len, truncated });
    }
    Ok(())
}

/// Reads as a socket does: never more than there is room for.
fn read(frames: &mut Frames, bytes: &mut &[u8]) {
    let buffer = frames.buffer_mut();
    assert!(buffer.capacity() - buffer.len() >= LEAST_ROOM);
    let len = bytes.len().min(buffer.capacity() - buffer.len());
    buffer.extend_from_slice(&bytes[..len]);
    *bytes = &bytes[len..];
}

/// What comes out where `bytes` come in pieces that end at `cuts`.
fn in_pieces(
    limits: Limits,
    bytes: &[u8],
    cuts: &[usize],
) -> (Vec<Taken>, Result<(), FrameError>, usize) {
    let mut frames = Frames::new(limits);
    let mut taken = Vec::new();
    let mut largest = 0;
    let mut from = 0;
    for &to in cuts.iter().chain([&bytes.len()]) {
        let mut piece = &bytes[from..to];
        from = to;
        while !piece.is_empty() {
            read(&mut frames, &mut piece);
            let result = take_all(&mut frames, &mut taken);
            largest = largest.max(frames.allocated());
            if result.is_err() {
                return (taken, result, largest);
            }
        }
    }
    (taken, Ok(()), largest)
}

/// What `messages` must come out as.
fn expected(limits: Limits, messages: &[(u8, Vec<u8>)]) -> Vec<Taken> {
    let frame = |(tag, body): &(u8, Vec<u8>)| {
        let truncated = *tag == COPY_DATA && body.len() > limits.copy_data;
        let kept = if truncated { limits.kept } else { body.len() };
        Taken { tag: *tag, body: body[..kept].to_vec(), len: body.len(), truncated }
    };
    messages.iter().map(frame).collect()
}

fn messages() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let copy_data = (Just(COPY_DATA), vec(any::<u8>(), 0..160));
    let other = (
        any::<u8>().prop_filter("not CopyData", |tag| *tag != COPY_DATA),
        vec(any::<u8>(), 0..=32),
    );
    vec(prop_oneof![3 => copy_data, 1 => other], 0..12)
}

fn cuts_of(len: usize, cuts: Vec<prop::sample::Index>) -> Vec<usize> {
    let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.index(len + 1)).collect();
    cuts.sort_unstable();
    cuts
}

proptest! {
    #[test]
    fn any_pieces_give_the_same_messages(
        messages in messages(),
        cuts in vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let bytes: Vec<u8> = messages.iter().flat_map(|(tag, body)| message(*tag, body)).collect();
        let expected = expected(LIMITS, &messages);
        let every: Vec<usize> = (0..bytes.len()).collect();
        for cuts in [&[][..], &cuts_of(bytes.len(), cuts), &every] {
            let (taken, result, _) = in_pieces(LIMITS, &bytes, cuts);
            prop_assert_eq!(result, Ok(()));
            prop_assert_eq!(&taken, &expected);
        }
    }

    #[test]
    fn a_strict_prefix_gives_no_message(tag: u8, body in vec(any::<u8>(), 0..40)) {
        let bytes = message(tag, &body);
        for end in 0..bytes.len() {
            let mut frames = Frames::new(LIMITS);
            frames.buffer_mut().extend_from_slice(&bytes[..end]);
            let found = frames.next();
            let nothing = matches!(found, Ok(None) | Err(FrameError::TooLong { .. }));
            prop_assert!(nothing, "{:?}", found);
        }
    }

    #[test]
    fn any_bytes_are_messages_or_an_error(
        bytes in vec(prop_oneof![any::<u8>(), Just(0), Just(COPY_DATA)], 0..200),
        cuts in vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let whole = in_pieces(LIMITS, &bytes, &[]);
        prop_assert_eq!(in_pieces(LIMITS, &bytes, &cuts_of(bytes.len(), cuts)), whole);
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Real sizes: messages around and beyond the buffer, reads as sockets give them.
    #[test]
    fn long_messages_come_whole_in_a_bounded_buffer(
        lens in vec(prop_oneof![0_usize..600, 100_000_usize..1_500_000], 1..12),
        piece in 1_usize..200_000,
    ) {
        let limits = Limits { copy_data: 1_000_000, other: 30_000, kept: 5_000 };
        let mut byte = 0_u8;
        let mut filled = |len| -> Vec<u8> {
            byte += 1;
            (0..len).map(|at: usize| (at / 251) as u8 ^ byte).collect()
        };
        let messages: Vec<_> = lens.iter().map(|&len| (COPY_DATA, filled(len))).collect();
        let bytes: Vec<u8> = messages.iter().flat_map(|(tag, body)| message(*tag, body)).collect();
        let cuts: Vec<usize> = (0..bytes.len()).step_by(piece).collect();
        let (taken, result, largest) = in_pieces(limits, &bytes, &cuts);
        prop_assert_eq!(result, Ok(()));
        prop_assert!(taken == expected(limits, &messages));
        prop_assert!(largest <= limits.copy_data + HEADER + LEAST_ROOM, "{}", largest);
    }
}

#[test]
fn what_is_too_long_is_read_past_and_never_buffered() {
    let limits = Limits { copy_data: 1 << 20, other: 1 << 10, kept: 1 << 10 };
    let mut frames = Frames::new(limits);
    let len = 50 << 20;
    let mut bytes = message(COPY_DATA, &vec![7; len]);
    bytes.extend(message(b'Z', b"I"));
    let mut bytes = bytes.as_slice();
    let mut taken = Vec::new();
    while !bytes.is_empty() {
        read(&mut frames, &mut bytes);
        take_all(&mut frames, &mut taken).unwrap();
        assert!(frames.allocated() <= READ, "{}", frames.allocated());
    }
    assert_eq!(taken.len(), 2);
    assert_eq!((taken[0].len, taken[0].body.len(), taken[0].truncated), (len, 1 << 10, true));
    assert_eq!((taken[1].tag, taken[1].truncated), (b'Z', false));
}

#[test]
fn the_buffer_grows_for_a_long_message_only_and_shrinks_after_it() {
    let limits = Limits { copy_data: 8 << 20, other: 1 << 10, kept: 1 << 10 };
    let mut frames = Frames::new(limits);
    let mut bytes = vec![];
    let long = (4 << 20) + 1;
    for _ in 0..3 {
        bytes.extend(message(COPY_DATA, &vec![7; long]));
    }
    let mut bytes = bytes.as_slice();
    let mut taken = Vec::new();
    while !bytes.is_empty() {
        read(&mut frames, &mut bytes);
        take_all(&mut frames, &mut taken).unwrap();
        assert!(frames.allocated() <= HEADER + long + LEAST_ROOM, "{}", frames.allocated());
    }
    assert_eq!(taken.len(), 3);
    assert!(frames.allocated() > long);
    for _ in 0..READS_UNTIL_SHRINK {
        let keepalive = message(COPY_DATA, &[0; 18]);
        read(&mut frames, &mut keepalive.as_slice());
        take_all(&mut frames, &mut taken).unwrap();
    }
    assert_eq!(frames.allocated(), READ);
}

#[test]
fn small_messages_never_move_to_another_buffer() {
    let mut frames = Frames::new(LIMITS);
    let stream = message(COPY_DATA, &[1; 50]).repeat(100_000);
    let mut bytes = stream.as_slice();
    let mut count = 0;
    let mut places = std::collections::BTreeSet::new();
    while !bytes.is_empty() {
        read(&mut frames, &mut bytes);
        places.insert(frames.buffer.as_ptr() as usize / READ);
        while frames.next().unwrap().is_some() {
            count += 1;
        }
    }
    assert_eq!(count, 100_000);
    assert_eq!(frames.allocated(), READ);
    assert!(places.len() <= 2, "{places:?}");
}

#[test]
fn what_is_no_message_is_a_typed_error() {
    let error = |bytes: &[u8]| {
        let mut frames = Frames::new(LIMITS);
        frames.buffer_mut().extend_from_slice(bytes);
        frames.next().unwrap_err()
    };
    let short = error(b"Z\0\0\0\x03");
    assert_eq!(short, FrameError::BadLength { tag: b'Z', len: 3 });
    assert_eq!(error(b"d\0\0\0\0"), FrameError::BadLength { tag: b'd', len: 0 });
    let long = error(b"E\0\0\0\x25");
    assert_eq!(long, FrameError::TooLong { tag: b'E', len: 33, limit: 32 });
    // Another protocol answering: "HTTP/1.1 400".
    let said = error(b"HTTP/1.1 400 Bad Request").to_string();
    assert!(said.contains("'H'") && said.contains("is this a PostgreSQL server?"), "{said}");
}
