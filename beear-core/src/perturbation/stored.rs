//! Storage of perturbations as safetensors.

use std::collections::HashMap;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::{Delta, InjectionPoint, Perturbation};
use crate::error::Error;
use crate::positions::Positions;

/// Serialises perturbations: part `k` of perturbation `p` as tensor `delta.p.k` in f32, and in the
/// metadata entry `injection_points` a line `delta.p.k layer/positions/n` per part. Equal
/// perturbations give equal bytes.
///
/// # Errors
///
/// [`Error::MalformedPerturbation`] if the format refuses the tensors.
pub fn to_safetensors<B: Backend>(perturbations: &[Perturbation<B>]) -> Result<Vec<u8>, Error> {
    let malformed = |reason: String| Error::MalformedPerturbation { reason };
    // A single entry, because the library writes several entries in no fixed order.
    let mut injection_points = Vec::new();
    let mut buffers = Vec::new();
    for (p, perturbation) in perturbations.iter().enumerate() {
        for (k, delta) in perturbation.deltas().iter().enumerate() {
            injection_points.push(format!("{} {}", name(p, k), point_to_text(delta.point)));
            let values = delta.values.to_data().convert::<f32>();
            buffers.push((name(p, k), delta.values.dims().to_vec(), values.bytes));
        }
    }
    let views = buffers
        .iter()
        .map(|(name, shape, bytes)| {
            TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (name.as_str(), view))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| malformed(e.to_string()))?;
    let metadata = HashMap::from([(INJECTION_POINTS.to_owned(), injection_points.join("\n"))]);
    safetensors::serialize(views, Some(metadata)).map_err(|e| malformed(e.to_string()))
}

/// Reads perturbations that [`to_safetensors`] wrote.
///
/// # Errors
///
/// [`Error::MalformedPerturbation`] if `bytes` is not such a file.
pub fn from_safetensors<B: Backend>(
    bytes: &[u8],
    device: &B::Device,
) -> Result<Vec<Perturbation<B>>, Error> {
    let malformed = |reason: &str| Error::MalformedPerturbation { reason: reason.to_owned() };
    let file = SafeTensors::deserialize(bytes).map_err(|e| malformed(&e.to_string()))?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| malformed(&e.to_string()))?;
    let metadata = header.metadata().as_ref().ok_or_else(|| malformed("no metadata"))?;
    let injection_points =
        metadata.get(INJECTION_POINTS).ok_or_else(|| malformed("no injection points"))?;
    let injection_points: HashMap<&str, &str> =
        injection_points.lines().filter_map(|line| line.split_once(' ')).collect();
    let part = |name: &str| {
        let view = file.tensor(name).map_err(|e| malformed(&e.to_string()))?;
        let point = injection_points.get(name).and_then(|text| point_from_text(text));
        let point = point.ok_or_else(|| malformed("a perturbation without its injection point"))?;
        let &[n_tokens, d_model] = view.shape() else {
            return Err(malformed("a perturbation is not a matrix"));
        };
        if view.dtype() != Dtype::F32 || n_tokens != point.positions.n_tokens() {
            return Err(malformed("a perturbation of another type or size than its positions"));
        }
        let values = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        let data = TensorData::new(values.collect::<Vec<f32>>(), [n_tokens, d_model]);
        Ok(Delta { point, values: Tensor::from_data(data, device) })
    };
    let (mut perturbations, mut n_read) = (Vec::new(), 0);
    while n_read < file.len() {
        let p = perturbations.len();
        let names = (0..)
            .map(|k| name(p, k))
            .take_while(|name| injection_points.contains_key(name.as_str()));
        let deltas = names.map(|name| part(&name)).collect::<Result<Vec<_>, _>>()?;
        if deltas.is_empty() {
            return Err(malformed("a tensor that is no perturbation"));
        }
        n_read += deltas.len();
        perturbations.push(Perturbation::new(deltas));
    }
    Ok(perturbations)
}

/// Key of the injection points in the metadata.
const INJECTION_POINTS: &str = "injection_points";

fn name(p: usize, k: usize) -> String {
    format!("delta.{p}.{k}")
}

fn point_to_text(point: InjectionPoint) -> String {
    let positions = match point.positions {
        Positions::Last(n) => format!("last/{n}"),
        Positions::First(n) => format!("first/{n}"),
        Positions::UserLast(n) => format!("user_last/{n}"),
        Positions::All => "all/1".to_owned(),
    };
    format!("{}/{positions}", point.layer)
}

fn point_from_text(text: &str) -> Option<InjectionPoint> {
    let mut parts = text.split('/');
    let layer = parts.next()?.parse().ok()?;
    let kind = parts.next()?;
    let n = parts.next()?.parse().ok()?;
    let positions = match kind {
        "last" => Positions::Last(n),
        "first" => Positions::First(n),
        "user_last" => Positions::UserLast(n),
        "all" => Positions::All,
        _ => return None,
    };
    parts.next().is_none().then_some(InjectionPoint { layer, positions })
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    type Cpu = Flex;

    fn delta(layer: usize, positions: Positions, values: &[f64]) -> Delta<Cpu> {
        let n_tokens = positions.n_tokens();
        let shape = [n_tokens, values.len() / n_tokens];
        let data = TensorData::new(values.to_vec(), shape);
        let values = Tensor::from_data(data.convert::<f32>(), &Default::default());
        Delta { point: InjectionPoint { layer, positions }, values }
    }

    fn stored() -> (Vec<Perturbation<Cpu>>, Vec<u8>) {
        let several = vec![
            delta(4, Positions::First(2), &[0.1, -3.0e-20, 7.5, 1.0 / 3.0]),
            delta(2, Positions::All, &[1.0, 2.0]),
        ];
        let one = vec![delta(3, Positions::UserLast(1), &[5.0, 6.0])];
        let all: Vec<_> = [several, one].into_iter().map(Perturbation::new).collect();
        let bytes = to_safetensors(&all).unwrap();
        (all, bytes)
    }

    #[test]
    fn stored_perturbations_come_back_bit_for_bit() {
        let (all, bytes) = stored();
        let read = from_safetensors::<Cpu>(&bytes, &Default::default()).unwrap();
        assert_eq!(read.len(), all.len());
        for (expected, found) in all.iter().zip(&read) {
            assert_eq!(expected.injection_points(), found.injection_points());
            for (expected, found) in expected.deltas().iter().zip(found.deltas()) {
                found.values.to_data().assert_eq(&expected.values.to_data(), true);
            }
        }
    }

    #[test]
    fn a_torn_or_foreign_file_is_refused() {
        let read = |bytes: &[u8]| from_safetensors::<Cpu>(bytes, &Default::default());
        let (_, bytes) = stored();
        assert_eq!(stored().1, bytes, "the same perturbations, the same bytes");
        for torn in [&bytes[..bytes.len() - 1], &bytes[..9], &[]] {
            assert!(matches!(read(torn), Err(Error::MalformedPerturbation { .. })));
        }
        let values = [0_u8; 8];
        let view = TensorView::new(Dtype::F32, vec![1, 2], &values).unwrap();
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let foreign = safetensors::serialize([("weight", view)], Some(metadata)).unwrap();
        assert!(matches!(read(&foreign), Err(Error::MalformedPerturbation { .. })));
    }
}
