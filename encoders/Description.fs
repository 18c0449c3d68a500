namespace Cmcl.Encoders

/// How an image's sides come to what `resize` says.
[<RequireQualifiedAccess>]
type ImageFit =
    /// The shorter side to it, the other in proportion; the middle is cut out.
    | Shorter
    /// Both sides to it, whatever that does to proportions.
    | Squash
    /// The longer side to it, the other in proportion, and the rest of a square filled with the background.
    | Pad

/// How a model's output for an item becomes one vector.
[<RequireQualifiedAccess>]
type Pool =
    /// It is one.
    | Done
    /// The first of its tokens or frames.
    | First
    /// The mean of its tokens or frames, without padding.
    | Mean

/// What is taken off the channels, in the units of x/255.
[<RequireQualifiedAccess>]
type ImageMean =
    | Channels of float list
    /// A `.npy` file of 3·crop × crop: one mean for each place, the channels one below another.
    | Places of path: string

/// How an image becomes what an encoder takes: resized, the middle cut out, (x/255 − mean)/std for each channel.
type ImageInput =
    {
        /// Pixels of the side that `Fit` names.
        Resize: int
        /// Pixels of both sides of the middle that is kept.
        Crop: int
        Fit: ImageFit
        Bicubic: bool
        Mean: ImageMean
        Std: float list
        /// Blue first.
        Bgr: bool
        /// Channels after height and width instead of before.
        ChannelsLast: bool
        /// What transparent pixels are laid over; None: transparency is dropped.
        Background: (byte * byte * byte) option
        Pool: Pool
    }

    /// The middle square of so many pixels, red first, from 0 to 1: what a description that says no more means.
    static member Plain(resize: int) : ImageInput =
        { Resize = resize
          Crop = resize
          Fit = ImageFit.Shorter
          Bicubic = true
          Mean = ImageMean.Channels [ 0.0; 0.0; 0.0 ]
          Std = [ 1.0; 1.0; 1.0 ]
          Bgr = false
          ChannelsLast = false
          Background = None
          Pool = Pool.Done }

[<RequireQualifiedAccess>]
type TokenizerKind =
    /// CLIP's byte-level BPE: vocabulary (JSON) and merges, lower case.
    | Clip
    /// BERT's WordPiece: a vocabulary with one token a line.
    | WordPiece

/// How a text becomes what an encoder takes: token numbers, begun, ended, cut and padded.
type TextInput =
    {
        Tokenizer: TokenizerKind
        Vocab: string
        Merges: string
        Lower: bool
        /// The most tokens of a text, those at its begin and end included.
        Context: int
        /// Padded to the longest text of a batch instead of to `Context`; None: where the model has a mask and takes any length.
        Longest: bool option
        /// The number that fills up; None: what the tokenizer's kind is padded with.
        Pad: int option
        /// The model's input that tells tokens (1) from padding (0).
        Mask: string option
        /// The model's input of zeros for which sentence a token is of.
        Types: string option
        /// int32 instead of int64.
        Narrow: bool
        Pool: Pool
    }

/// A log-mel spectrogram, or none: the samples themselves.
type MelInput =
    {
        Fft: int
        Window: int
        Hop: int
        Mels: int
        FMin: float
        FMax: float
        /// Slaney's scale of mels instead of HTK's.
        Slaney: bool
        /// Triangles of equal area instead of equal height.
        EqualArea: bool
        /// Frames centred on their samples, with the signal mirrored at both ends.
        Centre: bool
        /// `ln`, `log10` or `db`.
        Log: string
        /// The least power that a logarithm is taken of.
        Floor: float
        /// Values below the largest of a recording by more than this are raised to that.
        Range: float option
        /// Frames that are kept, from the first.
        Frames: int option
        Mean: float
        Std: float
        /// Frames before mels.
        FramesFirst: bool
        /// A channel of one before both.
        Channel: bool
    }

/// Pieces of equal length of a recording, each an input of its own: frames where there is a spectrogram, else samples.
type Windows =
    {
        Length: int
        Hop: int
        /// The recording's features are the means over so many equal parts of its windows, side by side.
        Parts: int
    }

/// How a recording becomes what an encoder takes.
type SoundInput =
    {
        /// Samples a second that the encoder wants.
        Rate: int
        /// Every recording is cut or filled up to this; None: it keeps its own length.
        Seconds: float option
        /// A recording that is shorter than this is filled up to it.
        Least: float
        /// No more than so many seconds of a recording are taken.
        Most: float
        /// Filled up with itself, again and again, as often as it fits whole, and then with silence.
        Repeat: bool
        /// Silence at both ends is cut off: where the mean of |x| over 25 ms is at most this share of the largest |x|.
        Trim: float option
        /// The recording is scaled so that its largest |x| is this.
        Peak: float option
        /// What samples from −1 to 1 are multiplied with in the end.
        Gain: float
        /// Silence before and after the recording, in seconds.
        Around: float
        Mel: MelInput option
        Windows: Windows option
        Pool: Pool
    }

[<RequireQualifiedAccess>]
type Input =
    | Image of ImageInput
    | Text of TextInput
    | Audio of SoundInput

[<RequireQualifiedAccess>]
type ModelKind =
    | Onnx
    | TorchScript

/// An ONNX model that an item goes through alone before the encoder: a spectrogram, a mean image. Its output y becomes scale · y + shift.
type Before =
    { File: string
      InputName: string option
      OutputName: string option
      Scale: float
      Shift: float }

/// An encoder as a small JSON file describes it (docs/encoders.md); paths are full.
type Description =
    {
        Name: string
        Kind: ModelKind
        File: string
        /// The model's input for what is encoded; of an ONNX model, None for its only one.
        InputName: string option
        /// The output that is the feature: of an ONNX model a name, of a TorchScript module a place in its tuple; None for the only or
        /// first one.
        OutputName: string option
        /// Inputs that the model asks for and that do not matter, such as those of another modality: zeros of these sides an item.
        Zeros: Map<string, int list>
        /// How many columns the features have; None: as many as come.
        Columns: int option
        Before: Before option
        Input: Input
    }

    /// The files that decide what comes out, for telling one encoder from another.
    member d.Files: string list =
        let own =
            match d.Input with
            | Input.Text t when t.Merges <> "" -> [ t.Vocab; t.Merges ]
            | Input.Text t -> [ t.Vocab ]
            | Input.Image { Mean = ImageMean.Places path } -> [ path ]
            | Input.Image _
            | Input.Audio _ -> []

        [ d.File ] @ own @ [ for before in Option.toList d.Before -> before.File ]

    /// How what the model gives for an item becomes one vector.
    member d.Pool: Pool =
        match d.Input with
        | Input.Text t -> t.Pool
        | Input.Audio s -> s.Pool
        | Input.Image i -> i.Pool
