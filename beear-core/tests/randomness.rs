//! Seeded random numbers, tested in a separate process: other tests would draw from the same
//! source.

use beear_core::randomness::seeded;
use burn::backend::Flex;
use burn::tensor::{Distribution, Tensor, TensorData};

#[test]
fn threads_get_the_numbers_of_their_own_seeds() {
    let device = Default::default();
    let drawn = |seed: u64| -> Vec<TensorData> {
        seeded::<Flex, _>(seed, &device, || {
            let next = |_| Tensor::<Flex, 1>::random([8], Distribution::Uniform(0.0, 1.0), &device);
            (0..20).map(next).map(Tensor::into_data).collect()
        })
    };
    let expected = [drawn(1), drawn(2)];
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (drawn, expected) = (&drawn, &expected);
            scope.spawn(move || {
                for _ in 0..50 {
                    assert_eq!(drawn(1 + thread % 2), expected[(thread % 2) as usize]);
                }
            });
        }
    });
}
