use super::*;

#[test]
fn devices_are_read_as_they_are_written() {
    for (text, choice) in
        [("cpu", Choice::Cpu), ("cuda:0", Choice::Cuda(0)), ("cuda:12", Choice::Cuda(12))]
    {
        assert_eq!(text.parse(), Ok(choice));
        assert_eq!(choice.to_string(), text);
    }
    assert_eq!("cuda".parse(), Ok(Choice::Cuda(0)));
    assert!(["", "gpu", "cuda:", "cuda:-1", "CPU"].iter().all(|t| t.parse::<Choice>().is_err()));
}

#[test]
fn a_tensor_that_stays_is_copied_once_and_two_of_a_weight_are_kept() {
    let gpu = Gpu {
        choice: Choice::Cuda(0),
        device: Device::Cpu,
        way: coming::Way::to(&Device::Cpu),
        weights: Mutex::default(),
        bytes: 1 << 30,
        limit: AtomicUsize::new(usize::MAX),
        notice: Box::new(|_| {}),
    };
    let tensors = [1f32, 2.0, 3.0].map(|x| Tensor::new(&[x], &Device::Cpu).unwrap());
    for round in [[0, 1], [1, 2], [0, 2]] {
        for i in round {
            let copy = gpu.weight(7, &tensors[i]).unwrap();
            assert_eq!(copy.to_vec1::<f32>().unwrap(), [(i + 1) as f32]);
        }
        assert_eq!(gpu.weights.lock().unwrap()[&7].len(), 2);
    }
    gpu.too_many(9);
    gpu.too_many(64);
    assert_eq!(gpu.limit(), 4);
}
