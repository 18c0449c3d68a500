namespace Cmcl

/// Small quadratic programmes, ½ vᵀHv + cᵀv over v ≥ lower, H positive definite, t × t with t some tens: plain numbers, on the CPU.
[<RequireQualifiedAccess>]
module Nonnegative =
    let private slope (h: float[,]) (c: float[]) (v: float[]) (i: int) : float =
        let mutable sum = c[i]

        for j in 0 .. v.Length - 1 do
            sum <- sum + h[i, j] * v[j]

        sum

    /// How far v is from the minimum (Karush, Kuhn and Tucker): the largest of |∂_i| where v_i > lower, of −∂_i where v_i = lower;
    /// infinite where v_i < lower. Zero at the minimum alone. Example: `Nonnegative.residual (array2D [ [ 2.0 ] ]) [| -2.0 |] 0.0 [| 1.0 |]`.
    let residual (h: float[,]) (c: float[]) (lower: float) (v: float[]) : float =
        v
        |> Array.mapi (fun i vi ->
            if vi > lower then abs (slope h c v i)
            elif vi = lower then max 0.0 -(slope h c v i)
            else infinity)
        |> Array.fold max 0.0

    /// The minimum over the places in `free` with zeros elsewhere: H_FF x_F = −c_F, by Cholesky. A pivot that rounding has eaten is taken for
    /// its rounding.
    let private among (h: float[,]) (c: float[]) (free: int list) : float[] =
        let places = Array.ofList free
        let n = places.Length
        let l = Array2D.zeroCreate n n
        let x = Array.zeroCreate n

        for i in 0 .. n - 1 do
            for j in 0..i do
                let mutable rest = h[places[i], places[j]]

                for k in 0 .. j - 1 do
                    rest <- rest - l[i, k] * l[j, k]

                l[i, j] <- if i = j then sqrt (max rest (1e-15 * h[places[i], places[i]])) else rest / l[j, j]

        for i in 0 .. n - 1 do
            let mutable rest = -c[places[i]]

            for k in 0 .. i - 1 do
                rest <- rest - l[i, k] * x[k]

            x[i] <- rest / l[i, i]

        for i in n - 1 .. -1 .. 0 do
            let mutable rest = x[i]

            for k in i + 1 .. n - 1 do
                rest <- rest - l[k, i] * x[k]

            x[i] <- rest / l[i, i]

        let all = Array.zeroCreate c.Length
        Array.iteri (fun i place -> all[place] <- x[i]) places
        all

    /// From w ≥ 0 towards the minimum over the free places; those that would fall below zero stop there and are free no longer.
    let rec private settle (h: float[,]) (c: float[]) (w: float[]) (free: int list) : struct (float[] * int list) =
        let target = among h c free

        match free |> List.filter (fun i -> not (target[i] > 0.0)) with
        | [] -> struct (target, free)
        | blocking ->
            let reach i = w[i] / (w[i] - target[i])
            let first = List.minBy reach blocking
            let step = reach first
            let moved = Array.mapi (fun i wi -> if i = first then 0.0 else max 0.0 (wi + step * (target[i] - wi))) w
            settle h c moved (free |> List.filter (fun i -> moved[i] > 0.0))

    /// argmin over v ≥ lower of ½ vᵀHv + cᵀv by active sets (Lawson and Hanson 1974, ch. 23): exact to rounding, each round frees the place
    /// whose growth lowers the aim fastest. Example: `Nonnegative.minimise (array2D [ [ 2.0 ] ]) [| -2.0 |] 0.0`.
    let minimise (h: float[,]) (c: float[]) (lower: float) : float[] =
        let count = c.Length
        // v = lower + w, w ≥ 0.
        let c = Array.init count (slope h c (Array.create count lower))
        let rounding = 1e-14 * Array.fold (fun most x -> max most (abs x)) 0.0 c

        /// `refused`: places that fell back at once, their slope being rounding.
        let rec grow rounds w free refused =
            let held = [ 0 .. count - 1 ] |> List.except free |> List.except refused

            match held |> List.filter (fun i -> slope h c w i < -rounding) with
            | [] -> w
            | _ when rounds = 0 -> w
            | falling ->
                let next = falling |> List.minBy (slope h c w)
                let struct (moved, left) = settle h c w (next :: free)
                grow (rounds - 1) moved left (if List.contains next left then [] else next :: refused)

        grow (20 * count) (Array.zeroCreate count) [] [] |> Array.map ((+) lower)
