namespace Cmcl

open System
open System.Security.Cryptography
open System.Text
open TorchSharp

/// A seed, split by purpose: two purposes never share a stream of numbers, and each is the same on every run.
[<Struct>]
type Seed =
    private
    | Seed of uint64

    /// The number that a generator is started from.
    member s.Value = let (Seed value) = s in value

[<RequireQualifiedAccess>]
module Seed =
    /// A seed from the user's number.
    let ofInt (seed: int) : Seed = Seed(uint64 (int64 seed))

    /// A seed for one purpose within another. Example: `seed |> Seed.split "shuffle" |> Seed.split "step 3"`.
    let split (purpose: string) (seed: Seed) : Seed =
        let text = $"{seed.Value}/{purpose}"
        Seed(BitConverter.ToUInt64(SHA256.HashData(Encoding.UTF8.GetBytes text), 0))

    /// A torch generator on the CPU, owned by the caller.
    let generator (seed: Seed) : torch.Generator = new torch.Generator(seed.Value, torch.CPU)

    /// A random order of 0 … n−1, int64 on the CPU.
    let permutation (n: int64) (seed: Seed) : torch.Tensor =
        use g = generator seed
        torch.randperm (n, generator = g)

    /// Standard normal numbers of the given shape, float64 on the CPU.
    let normal (shape: int64 list) (seed: Seed) : torch.Tensor =
        use g = generator seed
        torch.randn (Array.ofList shape, dtype = Nullable torch.float64, generator = g)
