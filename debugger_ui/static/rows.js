// A long list of which only what can be seen is in the document.

export class Rows {
  // `draw(element, index)` fills a row; rows are reused. `inner` is put into `scroller`.
  constructor(scroller, { height, top = 0, make, draw }) {
    this.scroller = scroller;
    this.height = height;
    this.top = top;
    this.make = make;
    this.draw = draw;
    this.count = 0;
    this.inner = document.createElement("div");
    this.inner.className = "rows";
    scroller.append(this.inner);
    this.pool = [];
    this.first = -1;
    scroller.addEventListener("scroll", () => this.refresh(), { passive: true });
    new ResizeObserver(() => this.refresh()).observe(scroller);
  }

  resize(count) {
    this.count = count;
    this.inner.style.height = `${this.top + count * this.height}px`;
    this.refresh();
  }

  get visible() { return Math.ceil(this.scroller.clientHeight / this.height) + 2; }

  refresh() {
    const first = Math.max(0, Math.floor((this.scroller.scrollTop - this.top) / this.height));
    const wanted = Math.min(this.visible, this.count);
    while (this.pool.length < wanted) {
      const row = this.make();
      row.classList.add("row");
      this.inner.append(row);
      this.pool.push(row);
    }
    this.pool.forEach((row, i) => {
      const index = first + i;
      const isUsed = i < wanted && index < this.count;
      row.hidden = !isUsed;
      if (!isUsed) return;
      row.style.transform = `translateY(${this.top + index * this.height}px)`;
      row.dataset.index = index;
      this.draw(row, index);
    });
  }

  // Bring a row into sight, moving as little as possible.
  reveal(index) {
    if (index < 0 || index >= this.count) return;
    const { scroller, height } = this;
    const above = this.top + index * height, room = scroller.clientHeight, margin = Math.min(3 * height, room / 4);
    if (above - margin < scroller.scrollTop) scroller.scrollTop = above - margin;
    else if (above + height + margin > scroller.scrollTop + room) scroller.scrollTop = above + height + margin - room;
  }
}
