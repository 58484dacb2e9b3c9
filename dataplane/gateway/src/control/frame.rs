//! Messages on a stream: each ends with a NUL byte. Bounds against a client that never ends one.

/// Longest request, bytes.
pub const REQUEST: usize = 1 << 20;

/// Longest answer that a client takes, bytes: the list of a million SAs fits.
pub const ANSWER: usize = 1 << 30;

/// Cuts a byte stream into messages.
#[derive(Debug)]
pub struct Decoder {
    bytes: Vec<u8>,
    searched: usize,
    limit: usize,
}

/// The peer sent more bytes than the limit without an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message too long")]
pub struct TooLong;

impl Decoder {
    /// A decoder of messages up to `limit` bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            searched: 0,
            limit,
        }
    }

    /// Takes what arrived.
    ///
    /// # Errors
    /// [`TooLong`]; the connection is of no more use then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > self.limit && !self.bytes[self.searched..].contains(&0) {
            return Err(TooLong);
        }
        Ok(())
    }

    /// No message has begun.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next whole message, without its NUL.
    pub fn next_message(&mut self) -> Option<Vec<u8>> {
        let found = self.bytes[self.searched..]
            .iter()
            .position(|byte| *byte == 0);
        match found {
            Some(offset) => {
                let end = self.searched + offset;
                let rest = self.bytes.split_off(end + 1);
                let mut message = std::mem::replace(&mut self.bytes, rest);
                message.truncate(end);
                self.searched = 0;
                Some(message)
            }
            None => {
                self.searched = self.bytes.len();
                None
            }
        }
    }
}

/// A message with its end.
///
/// # Errors
/// When the value cannot be written as JSON.
pub fn encode(message: &impl serde::Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec(message)?;
    bytes.push(0);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_survive_any_cutting(
            messages in prop::collection::vec(prop::collection::vec(1_u8.., 0..50), 0..20),
            cuts in prop::collection::vec(1_usize..30, 1..20),
        ) {
            let stream: Vec<u8> =
                messages.iter().flat_map(|m| m.iter().copied().chain([0])).collect();
            let mut decoder = Decoder::new(REQUEST);
            let mut got = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                prop_assert!(decoder.push(now).is_ok());
                while let Some(message) = decoder.next_message() {
                    got.push(message);
                }
                rest = later;
            }
            prop_assert_eq!(got, messages);
        }
    }

    #[test]
    fn an_endless_message_is_refused() {
        let mut decoder = Decoder::new(REQUEST);
        assert_eq!(decoder.push(&vec![1; REQUEST]), Ok(()));
        assert_eq!(decoder.next_message(), None);
        assert_eq!(decoder.push(&[1]), Err(TooLong));
    }
}
