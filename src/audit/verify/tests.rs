use super::*;

fn sent<T: Send>(_: T) {}

#[test]
fn x() {
    sent(verify(Arc::new(object_store::memory::InMemory::new()), Options::new(Timestamp::from_micros(1).unwrap())));
}
