namespace Cmcl.Encoders

open System
open TorchSharp
open Cmcl

/// Sound as encoders take it: another rate, one length, log-mel spectrograms.
[<RequireQualifiedAccess>]
module Sound =
    /// Zero crossings on either side of a sample that its sinc reaches, and where its pass band ends, as a share of half the lower rate.
    let private crossings, private rolloff = 6.0, 0.99

    /// More numbers than this a filter bank has no use for: rates like 44100 and 16000 take 76,000.
    let private mostTaps = 1L <<< 24

    let rec private divisor (a: int) (b: int) : int = if b = 0 then a else divisor b (a % b)

    /// The filters that give `into` samples for every `from` (divided by what both share): phase j of sample t sees
    /// c sinc(c u) cos²(π c u/12) at u = i/from − j/into, |c u| ≤ 6, with c = 0.99 min(from, into).
    let private filters (from: int) (into: int) : torch.Tensor * int64 =
        let band = rolloff * float (min from into)
        let reach = int64 (ceil (crossings * float from / band))

        let phases = (Tensors.range torch.CPU 0L into).``to`` torch.float64
        let places = (Tensors.range torch.CPU -reach (reach + int64 from)).``to`` torch.float64
        use c = band.AsScalar()
        use last = crossings.AsScalar()
        use first = (-crossings).AsScalar()
        use quarter = (Math.PI / (2.0 * crossings)).AsScalar()
        use perFrom = (float from).AsScalar()
        use perInto = (float into).AsScalar()
        let u = (((places / perFrom).unsqueeze 0L - (phases / perInto).unsqueeze 1L) * c).clamp(first, last)
        let window = (u * quarter).cos().squared()
        use gain = (band / float from).AsScalar()
        (torch.special.sinc u) * window * gain, reach

    /// The samples (n) at another rate (⌈n into/from⌉): a sinc under a Hann window, evaluated at the phases that there are.
    /// Fault: `Contradiction` for two rates that share so little that the filters would be too many.
    let resample (from: int) (into: int) (samples: torch.Tensor) : Result<torch.Tensor, Fault list> =
        let shared = divisor from into
        let a, b = from / shared, into / shared

        if a = b then
            Ok(samples.alias ())
        elif int64 b * (int64 a + 14L * int64 (max 1 (a / b))) > mostTaps then
            Error
                [ Fault.Contradiction(
                      $"{from} samples a second cannot be turned into {into} here: the two share no large factor",
                      "resample the recordings beforehand"
                  ) ]
        else
            Ok(
                Tensors.scoped (fun () ->
                    let kernel, reach = filters a b
                    let n = samples.shape[0]
                    let wanted = (n * int64 b + int64 a - 1L) / int64 a
                    let padded = torch.nn.functional.pad (samples, [| reach; reach + int64 a |])

                    let all =
                        torch.nn.functional.conv1d (
                            padded.reshape (1L, 1L, -1L),
                            kernel.``to``(samples.dtype).unsqueeze 1L,
                            stride = Nullable(int64 a)
                        )

                    all.squeeze(0L).t().reshape(-1L).narrow(0L, 0L, wanted).contiguous())
            )

    /// Cut, or filled up with silence at its end, to so many samples.
    let fit (count: int64) (samples: torch.Tensor) : torch.Tensor =
        let n = samples.shape[0]

        if n >= count then
            samples.narrow(0L, 0L, count).contiguous()
        else
            torch.nn.functional.pad (samples, [| 0L; count - n |])

    /// Mels of a frequency in Hz: HTK's 2595 log10(1 + f/700); or Slaney's, linear to 1000 Hz (3 mels each 200 Hz) and then
    /// 27 to a factor of 6.4.
    let mels (slaney: bool) (f: float) : float =
        if not slaney then 2595.0 * log10 (1.0 + f / 700.0)
        elif f < 1000.0 then 3.0 * f / 200.0
        else 15.0 + 27.0 * log (f / 1000.0) / log 6.4

    /// The frequency of a number of mels.
    let hertz (slaney: bool) (m: float) : float =
        if not slaney then 700.0 * (10.0 ** (m / 2595.0) - 1.0)
        elif m < 15.0 then 200.0 * m / 3.0
        else 1000.0 * exp ((m - 15.0) * log 6.4 / 27.0)

    /// Triangles over the frequencies of a spectrum, mels × (fft/2 + 1): between neighbours that are equally far apart in mels from
    /// fmin to fmax, of height 1, or of height 2/(width in Hz) so that all have one area.
    let triangles (rate: int) (m: MelInput) : float[,] =
        let low, high = mels m.Slaney m.FMin, mels m.Slaney m.FMax
        let corner i = hertz m.Slaney (low + (high - low) * float i / float (m.Mels + 1))

        Array2D.init m.Mels (m.Fft / 2 + 1) (fun row column ->
            let f = float column * float rate / float m.Fft
            let left, top, right = corner row, corner (row + 1), corner (row + 2)
            let height = max 0.0 (min ((f - left) / (top - left)) ((right - f) / (right - top)))
            if m.EqualArea then height * 2.0 / (right - left) else height)

    /// Hann's window, one period over its length, in the middle of `fft` numbers.
    let private window (m: MelInput) : torch.Tensor =
        let before = (m.Fft - m.Window) / 2

        torch.tensor (
            [| for i in 0 .. m.Fft - 1 ->
                   if i < before || i >= before + m.Window then
                       0f
                   else
                       float32 (0.5 - 0.5 * cos (2.0 * Math.PI * float (i - before) / float m.Window)) |]
        )

    /// The log-mel spectrogram of samples (n), mels × frames: log(max(floor, T |F(w · frame)|²)), less the mean, over std. A frame
    /// begins every `Hop` samples; centred, 1 + ⌊n/hop⌋ of them, else 1 + ⌊(n − fft)/hop⌋.
    let logMel (rate: int) (m: MelInput) (samples: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () ->
            let half = int64 (m.Fft / 2)

            let signal =
                if m.Centre then
                    let mirrored =
                        torch.nn.functional.pad (samples.reshape (1L, 1L, -1L), [| half; half |], PaddingModes.Reflect)

                    mirrored.reshape -1L
                else
                    samples

            let frames = signal.unfold (0L, int64 m.Fft, int64 m.Hop)
            let spectrum = torch.fft.rfft(frames * window m).abs().squared()
            let bank = torch.tensor(triangles rate m).``to`` torch.float32
            use floor' = m.Floor.AsScalar()
            let power = (Tensors.product bank (spectrum.t ())).clamp_min floor'

            let logs =
                match m.Log with
                | "ln" -> power.log ()
                | "log10" -> power.log10 ()
                | _ ->
                    use ten = 10.0.AsScalar()
                    power.log10 () * ten

            use mean = m.Mean.AsScalar()
            use std = m.Std.AsScalar()
            (logs - mean) / std)

    /// How many samples every recording has in the end. A frame needs more than half of `fft` of them where it is centred.
    let private length (input: SoundInput) : int64 = int64 (Math.Round(input.Seconds * float input.Rate))

    /// A description whose recordings are too short for one frame.
    let check (input: SoundInput) : Result<unit, Fault list> =
        match input.Mel with
        | Some m when length input < int64 (if m.Centre then m.Fft / 2 + 1 else m.Fft) ->
            Error
                [ Fault.Contradiction(
                      $"{input.Seconds} seconds at {input.Rate} samples a second do not fill one frame of {m.Fft} samples",
                      "give more seconds or a smaller fft"
                  ) ]
        | _ -> Ok()

    /// One recording as the encoder takes it (float32): samples, or mels × frames as the description lays them out.
    let prepare (input: SoundInput) (recording: Recording) : Result<torch.Tensor, Fault list> =
        use scope = torch.NewDisposeScope()

        resample recording.Rate input.Rate (torch.tensor recording.Samples)
        |> Result.map (fun samples ->
            let samples = fit (length input) samples

            let laid =
                match input.Mel with
                | None -> samples
                | Some m ->
                    let spectrogram = logMel input.Rate m samples
                    let turned = if m.FramesFirst then spectrogram.t().contiguous() else spectrogram
                    if m.Channel then turned.unsqueeze 0L else turned

            scope.MoveToOuter laid)
