//! Masking (RFC 6455, section 5.3), in place.

/// XORs `payload` with `mask`, of which byte `offset % 4` comes first: `offset` is how much of the
/// frame's payload came before. Masking and unmasking are the same.
///
/// Eight bytes a step over fixed-size chunks: the compiler turns the loop into vector code.
pub fn unmask(payload: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut turned = mask;
    turned.rotate_left(offset % 4);
    let half = u64::from(u32::from_ne_bytes(turned));
    let key = half << 32 | half;
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ key).to_ne_bytes();
    }
    // A chunk is a multiple of the mask, so the rest starts where the mask starts.
    for (byte, key) in rest.iter_mut().zip(turned.into_iter().cycle()) {
        *byte ^= key;
    }
}
